"""``flash chat``: ask an adapter that a server serves."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from flashrun.api import names, pod
from flashrun.api.names import Ref
from flashrun.cli.cluster.connection import connect
from flashrun.cli.cluster.server_answers import find_service, stream_answer
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.printable_text import printable_text
from flashrun.daemon_thread import in_daemon_thread


def chat(
    ref: Annotated[
        str,
        typer.Argument(
            help="RUN for its final adapter, RUN/step-N for a checkpoint.", metavar="REF"
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to ask; standard input without it.", metavar="PROMPT"),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="The system message before the first prompt.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Longest answer in tokens.", min=1)
    ] = 512,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 gives the likeliest answer.", min=0, max=2)
    ] = 0.0,
    base: Annotated[
        bool, typer.Option("--base", help="Ask the base model, without the adapter.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the server, if several serve it.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Ask an adapter that a server serves.

    The answer is printed as it is written. On a terminal without a prompt, each line that you type
    continues the conversation; Ctrl-D ends it. The model thinks if its run was trained to.

    Example: flash chat flash-1795370000-3fa9c1d2 "What is 17 + 25?"
    """
    try:
        parsed = names.parse_ref(ref)
    except ValueError as error:
        raise UsageFailure(str(error)) from None
    if prompt is None and not sys.stdin.isatty():
        prompt = _read_prompt()
    if prompt is not None and not prompt.strip():
        raise UsageFailure("the prompt is empty", "write it behind the reference")
    for what, text in (("the prompt", prompt), ("--system", system)):
        if not _is_text(text or ""):
            raise UsageFailure(f"{what} has bytes that are not UTF-8 text", "write it as text")
    settings = {"max_tokens": max_tokens, "temperature": temperature}
    messages = [{"role": "system", "content": system}] if system else []
    asyncio.run(_chat(parsed, prompt, messages, settings, base, name, namespace, context))


def _read_prompt() -> str:
    """Return what standard input has; a pipe may have other bytes than text."""
    try:
        prompt = sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise UsageFailure(
            f"standard input is not text in {error.encoding}", "pipe a text, or write the prompt"
        ) from None
    if not prompt:
        raise UsageFailure("standard input has no prompt", "write it behind the reference")
    return prompt


def _is_text(text: str) -> bool:
    """Return whether ``text`` can be sent: a shell can bring bytes of another encoding."""
    return text.encode(errors="ignore").decode() == text


async def _chat(
    ref: Ref,
    prompt: str | None,
    messages: list[dict[str, str]],
    settings: dict[str, Any],
    base: bool,
    server: str | None,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        from flashrun.port_forward import forwarded_service

        service = await find_service(session, str(ref), server)
        # Always sent: templates differ in their default.
        settings["chat_template_kwargs"] = {"enable_thinking": service.run.thinking}
        model_id = service.run.model.id if base else str(ref)
        forwarded = forwarded_service(
            session.cluster, service.name, session.namespace, pod.SERVING_PORT
        )
        async with forwarded as address:
            while (asked := prompt if prompt is not None else await _typed()) is not None:
                messages.append({"role": "user", "content": asked})
                answer = ""
                async for piece in stream_answer(address, model_id, messages, settings):
                    answer += piece
                    sys.stdout.write(printable_text(piece) if terminal.is_terminal() else piece)
                    sys.stdout.flush()
                terminal.write("")
                if prompt is not None:
                    return
                messages.append({"role": "assistant", "content": answer})


async def _typed() -> str | None:
    """Return the next line that is not empty; None at the end of what is typed."""
    while True:
        try:
            line = await in_daemon_thread(lambda: input("> "))  # Ctrl-C must end it
        except EOFError:
            return None
        except UnicodeDecodeError:
            line = "\udcff"
        if not _is_text(line):
            terminal.say("this line has bytes that are not UTF-8 text, and was not sent")
        elif line.strip():
            return line
