"""Texts that try to steer a terminal, and what may be seen of them."""

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b[2J\x1b[Hgone", "gone"),
    ("\x1b]0;title\x07text", "text"),
    ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1bPq#0;2\x1b\\after a picture", "after a picture"),
    ("\x9b2Jgone", "gone"),
    ("\x9d0;title\x9ctext", "text"),
    ("\x1b(0lines", "lines"),
    ("\x1bcreset", "reset"),
    ("half a sequence \x1b[31", "half a sequence [31"),
    ("a\u202eb", "ab"),
    ("a\rb", "a b"),
    ("a\r\nb\tc", "a\nb\tc"),
    ("[bold]x[/bold] <b>", "[bold]x[/bold] <b>"),
    ("half \ud800", "half "),
]
