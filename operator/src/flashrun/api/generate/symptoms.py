"""What a person sees when something is wrong, and what to do: ``docs/troubleshooting.md``.

Every reason that a person may have to do something about stands below one symptom. Its meaning, its
owner and what follows it are in ``flashrun.api.reasons``; here is only the way out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flashrun.api.reasons import Reason


class Sight(NamedTuple):
    """Something that a person sees and that has no reason of its own."""

    seen: str
    """As it is shown, with capital letters where something is filled in."""
    why: str
    remedy: str


@dataclass(frozen=True)
class Symptom:
    """A section of the page."""

    heading: str
    introduction: str
    remedies: Mapping[Reason, str] = field(default_factory=dict)
    """Reason → what its owner does."""
    sights: tuple[Sight, ...] = ()


SYMPTOMS: Final = (
    Symptom(
        heading="The command refuses",
        introduction=(
            "`flash` prints one sentence on standard error, and below it what"
            " to do. Exit code 2 means that nothing was done, 3 that what the"
            " command names does not exist ([all exit "
            "codes](cli.md#all-commands)). `flash doctor` finds what is "
            "missing on the way to the cluster, and names the command that "
            "repairs it."
        ),
        sights=(
            Sight(
                seen="no cluster, a wrong context or a refused login",
                why="`flash` uses the kubeconfig as kubectl does.",
                remedy="Try `kubectl get flashruns`. Choose with `--context` and `-n`.",
            ),
            Sight(
                seen="`the operator does not serve namespace NAME`",
                why=(
                    "The namespace is neither in the chart's `namespaces` nor has the labels of"
                    " `namespaceSelector`, or you may not read its ConfigMaps."
                ),
                remedy="Give another one with `-n`, or ask the administrator to add it.",
            ),
            Sight(
                seen="`you may not create FlashRun …` from `flash doctor`",
                why="You lack the role `edit` in the namespace.",
                remedy=(
                    "The administrator types the `kubectl create rolebinding` that the line shows."
                ),
            ),
            Sight(
                seen="an error with a line of the config",
                why="A key is misspelled, out of bounds, or does not belong to the algorithm.",
                remedy=(
                    "`flash explain KEY` has its meaning and bounds; `flash train CONFIG "
                    "--dry-run` checks again."
                ),
            ),
            Sight(
                seen="`environment.secrets names NAME, but no value is set`",
                why="The value is neither in your shell nor in `.env` or `.env.local`.",
                remedy="Set it there. It is sent into a Secret of the run and printed nowhere.",
            ),
            Sight(
                seen="`environment ORG/NAME has not been pushed to this platform`",
                why="A run takes its environment from storage, not from your folder.",
                remedy="`flash env push FOLDER --name ORG/NAME`.",
            ),
            Sight(
                seen="`FILE:LINE seems to hold …` from `flash env push`",
                why="A file of the package looks as if it held a secret.",
                remedy=(
                    "Read the value from `os.environ`, and list its name in `environment.secrets`."
                ),
            ),
            Sight(
                seen="a refusal that names a ValidatingAdmissionPolicy",
                why=(
                    "The platform does not allow this model, environment, length, budget or number "
                    "of GPUs in your namespace."
                ),
                remedy=(
                    "Change what the sentence names, or ask for another entry in the chart's "
                    "`policies`."
                ),
            ),
            Sight(
                seen="a warning that operator and program have different versions",
                why="`flash` and the cluster are of different releases.",
                remedy="Install the release of `flash` that `flash doctor` names.",
            ),
        ),
    ),
    Symptom(
        heading="The run waits",
        introduction=(
            "`flash status RUN`, `flash train` and the column MESSAGE of "
            "`kubectl get flashruns -o wide` show the same sentence. A run "
            "waits as long as it has to, and goes on by itself."
        ),
        remedies={
            Reason.UNSEEN: (
                "Look at `namespaces` or `namespaceSelector`, and at"
                " `kubectl get deploy,pods -A -l app.kubernetes.io/component=operator`."
                " `flash doctor` shows people whether their namespace is served."
            ),
            Reason.SECRET_MISSING: (
                "Put the missing names into a Secret of `spec.secretRefs` with the label "
                "`flashrun.dev/secrets`. [Runs in git](for-git.md#2-give-it-its-secrets) shows"
                " how."
            ),
            Reason.ADAPTER_NOT_FOUND: (
                "`flash checkpoints RUN` lists what can stand in `train.init_from_adapter`. It"
                " has to be of the same namespace."
            ),
            Reason.ENVIRONMENT_NOT_OWNED: (
                "Push it under an org of your namespace, or have the org bound in "
                "`environments.owners`."
            ),
            Reason.SWEEP_LIMIT: (
                "Nothing. `flash sweep status` shows which runs are at work; `limit` in the "
                "file of the sweep says how many may be."
            ),
            Reason.BUDGET_USED_UP: (
                "`flash budget RUN HOURS`, or raise `spec.budget.gpuHours` in git."
            ),
            Reason.NAMESPACE_BUDGET_USED_UP: "Wait for the next month, or raise `budgets`.",
            Reason.QUEUED: (
                "The sentence names the quota that is missing. Wait, or ask for more of it in "
                "Kueue's ClusterQueue."
            ),
            Reason.UNSCHEDULABLE: (
                "`flash gpus` shows what is free: wait, or end a run with `flash cancel`. If "
                "GPUs are free, compare the nodes with the pool's `nodeSelector`, `cpu` and "
                "`memory`."
            ),
            Reason.CLUSTER_REFUSES: (
                "Change the quota, LimitRange or policy that the sentence names. The next try "
                "follows by itself, within a minute."
            ),
            Reason.CLUSTER_UNAVAILABLE: (
                "Look at the API server, and at the webhook that the sentence names."
            ),
            Reason.MANAGED_ELSEWHERE: (
                "Keep the run's queue out of MultiKueue: its Secrets are in this cluster alone."
            ),
            Reason.SPEC_UNREADABLE: (
                "Make the spec smaller, or upgrade the operator to the release of the CRD."
            ),
            Reason.NAMESPACE_NOT_SERVED: (
                "Create the namespace and its RoleBinding again with `helm upgrade`, or take "
                "it out of `namespaces`. In a run: give the namespace its label back "
                "(`namespaceSelector`)."
            ),
            Reason.OPERATOR_FAILED: (
                "Read the operator's log, and report the error. The pass is tried again by itself."
            ),
            Reason.SUSPENDED: (
                "`kubectl patch flashrun RUN --type=merge -p "
                '\'{"spec":{"control":{"suspend":false}}}\'` lets it go on.'
            ),
            Reason.DELETED: (
                "The message names the finalizers: their programs have to let the object go."
            ),
        },
    ),
    Symptom(
        heading="The run is slow, or learns nothing",
        introduction=(
            "`flash report RUN` shows how the time was spent, and `flash "
            "metrics RUN` has `seconds/…` for each part of a step. "
            "[Performance](performance.md) has what was measured."
        ),
        remedies={
            Reason.TRAINING_WARNING: (
                "The sentence names what it is. A constant reward: read `flash rollouts RUN "
                "--worst 3`, and correct the score in `environment.py`."
            ),
            Reason.SCORE_FELL: (
                "Take the best checkpoint with `flash pull RUN --best`. Next time fewer "
                "`train.epochs`, a lower `train.learning_rate`, or more rows."
            ),
            Reason.STOPPED_BY_SWEEP: (
                "`flash sweep status SWEEP` has the scores. A sweep without `stop_worse` ends "
                "no run early."
            ),
            Reason.DIVERGED: "Lower `train.learning_rate`. Checkpoints before the step are intact.",
            Reason.WALL_CLOCK_EXCEEDED: (
                "Continue from the last checkpoint with `train.init_from_adapter`; train fewer"
                " steps, or ask for a larger `trainer.wallClockSeconds`."
            ),
        },
        sights=(
            Sight(
                seen="GRPO: most of a step is `seconds/generation`",
                why=(
                    "The log has `completions are sampled by` and the engine: without vLLM it "
                    "is transformers."
                ),
                remedy=(
                    "Ask for [a trainer image with vLLM](operate.md#an-image-with-vllm), or "
                    "lower `train.max_tokens`."
                ),
            ),
            Sight(
                seen="GRPO: most of a step is `seconds/scoring` or `seconds/environment`",
                why="The environment's own code, or the judge that it asks, takes this time.",
                remedy=(
                    "Ask the judge for several answers at a time; `flash env test` warns of a "
                    "slow reward."
                ),
            ),
            Sight(
                seen="minutes between two attempts",
                why=(
                    "The Job controller waits longer after each failure ([when the next "
                    "attempt starts](failures.md#when-the-next-attempt-starts))."
                ),
                remedy="Repair what `flash status RUN` names for the earlier attempts.",
            ),
            Sight(
                seen="the loss falls and `eval/loss` rises",
                why="The model learns the rows by heart.",
                remedy="Fewer `train.epochs`, or more rows.",
            ),
        ),
    ),
    Symptom(
        heading="The config cannot be trained",
        introduction=(
            "The run failed before its first step. Change the config, try it "
            "with `flash train CONFIG --dry-run --server`, and submit it as a"
            " new run."
        ),
        remedies={
            Reason.SPEC_INVALID: (
                "Change what the message names. If it says that the trainer cannot read the "
                "spec, operator and trainer image are of different releases."
            ),
            Reason.CONFIG_INVALID: "`flash log RUN` names the value.",
            Reason.BATCH_INDIVISIBLE: (
                "Make `train.batch_size` times `train.group_size` a multiple of the number of GPUs."
            ),
            Reason.TEMPERATURE_ZERO: "Set `train.temperature` above 0.",
            Reason.NO_POOL: (
                "Add a larger pool to `pools`. `flash models` shows people which models have one."
            ),
            Reason.PROMPTS_TOO_LONG: "Raise `train.max_length`, or lower `train.max_tokens`.",
            Reason.NOTHING_TO_LEARN: "Give the rows an output, or raise `train.max_length`.",
            Reason.EVAL_SPLIT_MISSING: (
                "Set `eval.split` to a split of the package, or add `dataset/eval.jsonl` and "
                "push again."
            ),
            Reason.EVAL_METRIC_MISSING: "Set `eval.metric` to one that the message lists.",
        },
    ),
    Symptom(
        heading="The environment or its rows fail",
        introduction=(
            "`flash env test FOLDER --config CONFIG` finds most of these on "
            "your machine. After a correction: `flash env push FOLDER --name "
            "ORG/NAME`, then `flash rerun RUN`."
        ),
        remedies={
            Reason.ENVIRONMENT_NOT_FOUND: (
                "`flash env push FOLDER --name ORG/NAME`; `flash env list` shows what there is."
            ),
            Reason.ENVIRONMENT_CORRUPT: (
                "Find out who changed the package. `flash env push FOLDER --name ORG/NAME` of the "
                "same folder publishes it again."
            ),
            Reason.ENVIRONMENT_INVALID: "Correct what the message names, and push again.",
            Reason.ENVIRONMENT_FAILED: (
                "The message has the place; `flash log RUN` has the traceback."
            ),
            Reason.ENVIRONMENT_UNAVAILABLE: (
                "It worked before: look at what it connects to, such as a judge or a service."
            ),
            Reason.EXAMPLES_DIFFER: "Use a `random.Random` with a fixed seed in `environment.py`.",
            Reason.REWARD_FAILED: (
                "The message has the error of the score. Test it with `flash env test FOLDER "
                "--verbose`."
            ),
            Reason.JUDGE_UNAVAILABLE: (
                "Look at the service that scores, and at its key. A connection that is denied "
                "shows as a time-out: `networkPolicy.egress.extra` allows it."
            ),
            Reason.DATA_INVALID: "`flash log RUN` names the row.",
            Reason.DATASET_INVALID: "Correct the row that the message names.",
            Reason.DATASET_MISSING: (
                "Set `dataset_path` in `[environment.params]` relative to `environment.py`."
            ),
            Reason.DATASET_EMPTY: (
                "Add rows with an input, and for SFT an output; or choose another `split` in "
                "`[environment.params]`."
            ),
            Reason.SPLIT_MISSING: (
                "Set `split` in `[environment.params]` to one that the message lists."
            ),
            Reason.TEXT_INVALID: (
                "Write the text of the dataset as valid Unicode: the row has half a character."
            ),
            Reason.TEMPLATE_REFUSED: (
                "Change the messages; `flash env test FOLDER --model MODEL` finds the rows."
            ),
        },
    ),
    Symptom(
        heading="Packages cannot be installed",
        introduction=(
            "The init container `packages` installs the list "
            "`environment.pip`; its lines in `flash log RUN` begin with "
            "`[packages]`."
        ),
        remedies={
            Reason.PACKAGE_NOT_FOUND: "Correct the name or the version in `environment.pip`.",
            Reason.PACKAGE_CONFLICT: (
                "Take a version that fits those of the trainer; the message names both."
            ),
            Reason.PACKAGE_FAILED: "Choose a version that the index has as a wheel.",
            Reason.INDEX_UNAVAILABLE: (
                "Check `trainer.pipIndexUrl`, `trainer.pipIndexSecret` and `networkPolicy.egress`."
            ),
        },
    ),
    Symptom(
        heading="The model or the adapter cannot be used",
        introduction="`flash models` lists the base models that runs may name.",
        remedies={
            Reason.MODEL_UNAVAILABLE: (
                "Check the revision and the hub's credentials (`trainer.hubSecret`), or put "
                "the model into the mirror with `flash model push`."
            ),
            Reason.HUB_UNAVAILABLE: (
                "Check `trainer.hubEndpoint` and `networkPolicy.egress.hub`, or mirror the "
                "model with `flash model push`."
            ),
            Reason.ADAPTER_UNAVAILABLE: "Name a checkpoint that `flash checkpoints RUN` lists.",
            Reason.ADAPTER_MISMATCH: (
                "Start from an adapter of the same base model, or leave out "
                "`train.init_from_adapter`."
            ),
            Reason.CHAT_TEMPLATE_MISSING: "Use an instruction-tuned model.",
            Reason.END_TOKEN_MISSING: "Use an instruction-tuned model.",
            Reason.LAYERS_UNKNOWN: (
                "Choose a model of [another family](adapters.md#which-layers-an-adapter-changes)."
            ),
            Reason.TEMPLATE_UNSUPPORTED: (
                "Choose another model; for tools one whose template writes calls, such as Qwen3."
            ),
            Reason.SAMPLER_STALE: (
                "Report it with the model's name. A trainer image without vLLM samples with"
                " transformers."
            ),
        },
    ),
    Symptom(
        heading="Memory or disk ran out",
        introduction=(
            "[Out of memory](failures.md#out-of-memory) says what the platform tries by itself."
        ),
        remedies={
            Reason.CUDA_OUT_OF_MEMORY: (
                "Take the values in the hint; else lower `train.batch_size`, "
                "`train.max_length` or `train.lora_rank`, for GRPO also `train.max_tokens`."
            ),
            Reason.HOST_OUT_OF_MEMORY: (
                "Lower `train.batch_size`, and look at what the environment keeps; or ask for "
                "more `memory` in the pool."
            ),
            Reason.OUT_OF_MEMORY: "Lower `train.batch_size`, or ask for more `memory` in the pool.",
            Reason.PROCESS_KILLED: (
                "Most often main memory: as above. If the environment starts processes, count "
                "their memory, too."
            ),
            Reason.DISK_FULL: (
                "Shorten `environment.pip` or lower `train.lora_rank`; or ask for a larger "
                "`ephemeralStorage` in the pool."
            ),
            Reason.EVICTED: (
                "The message has the kubelet's sentence. Write less to disk, or ask for a "
                "larger `ephemeralStorage`; for the volume `shm` it is `trainer.sharedMemory`."
            ),
        },
    ),
    Symptom(
        heading="GPUs, nodes and pods",
        introduction=("Most of these need nobody: the run continues from its newest checkpoint."),
        remedies={
            Reason.INTERRUPTED: (
                "Nothing. If it happens often, look at who preempts or drains the nodes."
            ),
            Reason.NODE_LOST: "Look at the node.",
            Reason.POD_LOST: "Look at who deletes pods: `kubectl get events -n NAMESPACE`.",
            Reason.GPU_FAULT: (
                "Look at the GPUs of the node that `flash status RUN` shows beside the attempt, "
                "and drain it."
            ),
            Reason.NCCL_FAILED: (
                "Check the network between the GPUs and nodes ([several "
                "nodes](operate.md#several-nodes))."
            ),
            Reason.NCCL_FAILURE: "As `NcclFailed`; `flash log RUN` has the last lines.",
            Reason.PEER_FAILED: "Read the reason of the pod that failed first; status names it.",
            Reason.PEER_LOST: "Look at the node of the pod that went away.",
            Reason.PEERS_MISSING: (
                "All pods of the run must fit at the same time: free capacity, or let Kueue "
                "admit them together (`trainer.queue`)."
            ),
            Reason.SUPERSEDED: "Nothing: a pod that was given up came back, and ended itself.",
            Reason.IMAGE_PULL_FAILED: "Check `trainer.image` and `trainer.pullSecrets`.",
            Reason.ADDED_CONTAINER_FAILED: (
                "Look at the program that adds the container, such as a service mesh; status "
                "names it."
            ),
        },
    ),
    Symptom(
        heading="Storage",
        introduction=(
            "`flash doctor` tries storage from your machine, with your own "
            "keys; `/readyz` of the operator says what it found. Training "
            "goes on while storage is away ([when storage "
            "fails](storage.md#when-storage-fails))."
        ),
        remedies={
            Reason.STORAGE_UNAVAILABLE: (
                "Look at the server, at the keys in the Secret of `storage.existingSecret`, at"
                " `storage.endpoint`, `caBundle` and `networkPolicy.egress`."
            ),
            Reason.STORAGE_UNSUITABLE: (
                "The sentence names what is missing and the setting, for example "
                "`storage.sts`. [Servers](storage.md#servers) lists which ones work."
            ),
            Reason.UPLOAD_TIMEOUT: (
                "Check the way from the pods to storage, or raise `trainer.uploadTimeoutSeconds`."
            ),
            Reason.RECORD_REFUSED: (
                "The message names file and field. The environment's code may have written "
                "below the run's prefix; [bounds](storage.md#bounds-of-records)."
            ),
            Reason.TOO_MANY_FILES: (
                "The sentence names which: delete files that are not needed, or raise "
                "`train.save_every`."
            ),
        },
    ),
    Symptom(
        heading="The trainer ended, and no message explains it",
        introduction=(
            "`flash log RUN` has the last lines. Please report what remains unclear, with the log."
        ),
        remedies={
            Reason.PROCESS_FAILED: (
                "Look for `sys.exit`, a crash in native code or a child process of the environment."
            ),
            Reason.TRAINER_FAILED: "As `ProcessFailed`.",
            Reason.UNEXPECTED: "The log has the traceback.",
            Reason.RESULT_MISSING: "The environment may have ended the process with `sys.exit`.",
            Reason.JOB_FAILED: (
                "Look at who deletes pods. `flash rerun RUN` trains again; with "
                "`train.init_from_adapter` it starts from a checkpoint."
            ),
        },
    ),
    Symptom(
        heading="Weights & Biases shows nothing",
        introduction=(
            "Training goes on, and `flash metrics RUN` and `flash report RUN`"
            " have the same numbers."
        ),
        remedies={
            Reason.WANDB_KEY_MISSING: (
                "Set `WANDB_API_KEY` in your shell or `.env` when you submit the run; in git, "
                "in a Secret of `spec.secretRefs`."
            ),
            Reason.WANDB_OFF: (
                "The sentence has the error. Check the key, and that trainer pods may connect "
                "(`networkPolicy.egress.extra`)."
            ),
        },
    ),
)
