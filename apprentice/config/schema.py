"""The parameters of a pipeline, one model a section of params.yaml. The values live there, and only there."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator, model_validator

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed of NumPy's and PyTorch's random generators."""


class Section(BaseModel):
    """A frozen section. It refuses unknown and missing keys, values of another type, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Section):
    """The base model: what training starts from."""

    name: str
    """`smollm2-135m-instruct` or `gemma-3-270m` (fetched from the package index; the latter under Gemma's terms of use),
    a local folder, or a Hugging Face id, which `id@revision` pins to a commit."""


class PolicyConfig(Section):
    """What answers prompts."""

    engine: Literal["vllm", "transformers"]
    """`vllm`: a server process of its own. `transformers`: in the stage's process; for machines without vLLM."""
    port: int | None = Field(ge=0, le=65535)
    """TCP port on the loopback interface, whose every route asks for a random key; 0 takes a free one. None: a Unix socket that only this user reaches."""
    max_context: int = Field(gt=0)
    """Tokens of prompt and completion together."""
    max_sequences: int = Field(gt=0)
    """Completions the engine works on at the same time."""
    kv_cache_gib: float = Field(gt=0)
    """Memory for keys and values, in GiB; of each GPU where there are some."""
    gpus: int = Field(gt=0)
    """GPUs over which the server spreads the model (tensor parallelism); without a GPU it makes no difference."""
    first_gpu: int = Field(ge=0)
    """Number of the first of them. The trainer's ranks take 0 and up; a server behind these has GPUs of its own, as `train.overlap` wants."""
    sleep: bool
    """The server frees its GPUs' memory during updates, for a trainer on the same GPUs; without a GPU it has none to free."""


class EnvironmentConfig(Section):
    """What the episodes of every use case have."""

    use: str
    """The use case: `deepsearch`, `assistant`, your own as `package.module:Class`, or an entry point of the group `apprentice.usecases`."""
    max_turns: int = Field(gt=0)
    max_turn_tokens: int = Field(gt=0)
    """Tokens the policy may sample in one turn."""
    max_failed_turns: int = Field(gt=0)
    """Turns in a row that are malformed or end in an error, after which the attempt is over."""
    max_tokens: int = Field(gt=0)
    """Tokens of a whole episode, prompt and observations included."""
    concurrency: int = Field(gt=0)
    """Episodes in flight at the same time."""


class DataConfig(Section):
    """Where tasks and knowledge base come from, for every use case."""

    format: str
    """How the source is read; the use case says which formats it knows."""
    source: str | None
    """Where the data is; None where the use case generates it."""
    seed: Seed
    train: int = Field(gt=0)
    """Maximum number of training tasks."""
    dev: int = Field(gt=0)
    """Maximum number of held-out tasks."""


class ValidateConfig(Section):
    """When data is good enough to go on with."""

    max_bad_share: float = Field(ge=0, le=1)
    """Share of quarantined records above which the stage fails."""
    require_answer_in_corpus: bool
    """Quarantine answerable tasks none of whose answers occurs in the knowledge base, where its passages are here."""


class DistillConfig(Section):
    """Supervised warm start, for models too small to have a signal."""

    source: Literal["expert", "rejection", "none"]
    """`expert`: scripted traces; `rejection`: the base policy's own successes; `none`: training starts from the base model."""
    traces: int = Field(ge=0)
    """Successful traces to learn from, at most."""
    attempts: int = Field(gt=0)
    """Samples a task, for `rejection`."""
    epochs: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch: int = Field(gt=0)
    """Traces an optimizer step."""
    micro_batch_tokens: int = Field(gt=0)
    seed: Seed


class FilterConfig(Section):
    """Which tasks are worth learning from."""

    candidates: int = Field(gt=0)
    """Training tasks probed, at most."""
    probes: int = Field(gt=1)
    """Attempts a task."""
    keep: int = Field(gt=0)
    """Tasks in the curriculum, at most."""
    hardness: float = Field(ge=0)
    """Exponent of the preference for harder tasks: weight = signal * (1 - pass rate) ** hardness; 0 has none."""
    unsolved_share: float = Field(ge=0, le=1)
    """Share of the curriculum kept for tasks never solved when probed."""
    temperature: float = Field(gt=0)
    seed: Seed


class RolloutConfig(Section):
    """The starting policy's trajectories at full width."""

    tasks: int = Field(gt=0)
    attempts: int = Field(gt=0)
    """Episodes a task."""
    temperature: float = Field(gt=0)
    seed: Seed


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
    """How policies are compared on held-out tasks."""

    tasks: int = Field(gt=0)
    """Held-out tasks, at most."""
    samples: int = Field(ge=0)
    """Sampled episodes a task besides the greedy one, for the starting and the trained policy."""
    temperature: float = Field(gt=0)
    seed: Seed
    """Seed of the held-out tasks drawn, and of the sampled episodes."""


class RegisterConfig(Section):
    """When a trained policy becomes the champion."""

    model_name: str
    margin: float
    """The 95% interval of the challenger's gain in the main figure (EM, TGC) must lie above this."""


class PipelineConfig(Section):
    """One pipeline: a section a stage, and what the stages share."""

    description: str
    model: ModelConfig
    policy: PolicyConfig
    environment: EnvironmentConfig
    """The use case defines this section and the next (`pipeline_model`)."""
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
            raise ValueError("overlap must be false with policy.sleep: episodes are played during updates then, and the server sleeps")
        return train


def pipeline_model(environment: type[EnvironmentConfig], data: type[DataConfig]) -> type[PipelineConfig]:
    """Create the model of a pipeline whose use case has these two sections."""
    return create_model("PipelineConfig", __base__=PipelineConfig, environment=(environment, ...), data=(data, ...))
