"""All settings of a run, validated once at the edge; the defaults are in one place, here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pgkd_agent.config.merging import explain, merge, nested
from pgkd_agent.errors import ConfigError


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with other values, validated like the first one.

        Args:
            values: By dotted key, as `{"student.learning_rate": 1e-5}` of a whole config; later ones win.
        Raises:
            ConfigError: An unknown key, or a value out of range.
        """
        merged = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            merged = merge(merged, nested(key, value))
        try:
            return self.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(f"invalid settings: {explain(error, type(self))}") from error


class DataSettings(_Settings):
    dataset: str | None = None
    """One of the paper's datasets by name (`pgkd datasets`), instead of files of one's own."""
    data_dir: Path | None = None
    """Folder with the files of `dataset`; None asks the model hub."""
    text_column: str | None = None
    """Column with the texts; None guesses by name and says so."""
    label_column: str | None = None
    """Column with the labels; None guesses by name and says so."""
    rows: int | None = Field(default=None, ge=2)
    """Labelled rows to draw for training and validation together; None takes all. Paper: 1,000."""
    test_rows: int | None = Field(default=None, ge=1)
    """Test rows to draw; None takes all. The same for every seed."""
    skip_incomplete: bool = False
    """Leave out rows without a text or a label, aloud, instead of refusing them."""
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the drawn rows kept for validation. Paper: 0.2."""
    task_description: str = ""
    """What the texts are and what the labels mean; the variants in the paper's words leave it out."""


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Of learning."""


def _switch(value: Any) -> Any:
    """YAML reads `on` and `off` without quotes as true and false."""
    return ("off", "on")[value] if isinstance(value, bool) else value


class StudentSettings(_Settings):
    name: str = "minilm"
    """`minilm` or `mpnet` (embedded), a hub id, or a local folder. Paper: bert-base-uncased."""
    learning_rate: Rate | Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    """Peak rate; of several the plain student's validation loss chooses, a fit each. None takes the student's own
    (bert-base 2e-5, minilm 1e-4, mpnet 3e-5). Paper: 2e-5."""
    train_batch_size: int | None = Field(default=None, ge=1)
    """Rows per gradient step; None takes the student's own (bert-base 64, minilm and mpnet 32). Paper: 64."""
    head_init: Literal["centroids", "random"] | None = None
    """How the head begins. `centroids`: at the mean embedding of each class's rows and name, for encoders that were
    trained to embed texts and say how (minilm, mpnet, folders and hub models of sentence-transformers), with the layer
    before it solved to give that embedding, and a supervised contrastive loss in the fit; other encoders begin at
    random. None takes the student's own (bert-base random). Paper: random."""
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    """Share of a row's label that training spreads over all classes, against overconfidence; None takes the student's
    own (bert-base 0, minilm and mpnet 0.1). Paper: 0."""
    soft_labels: float | None = Field(default=None, ge=0, lt=1)
    """How much of a row's label is, in the fits of KD steps, what the plain student predicts instead:
    self-distillation, for a pass over new rows and one more copy of the weights. None takes the student's own
    (bert-base 0, minilm and mpnet 0.5). For Algorithm 1, `frozen` and the controls; other methods take labels as they
    are. Paper: 0."""
    max_length: int = Field(default=512, ge=8)
    """Tokens a text is cut at, at most what the student can take. Paper: 512."""
    max_epochs: int | None = Field(default=None, ge=1)
    """Most epochs of a fit; None takes the student's own (bert-base 30, minilm and mpnet 5). Paper: 30."""
    balance: float = Field(default=1.0, ge=0, le=10)
    """Rows of rare classes are trained on again in an epoch, until no class has fewer than this multiple of the mean
    over classes; 0 never repeats one. A fit takes up to 1 + `balance` times as many steps, and no more where all
    classes have as many rows. For Algorithm 1 and the plain student; other methods take each row once. Paper: 0."""
    best_by: Literal["calibrated_loss", "loss"] = "calibrated_loss"
    """Validation loss that chooses among the models of the steps: after a temperature that is fitted on the other half
    of the rows, or as it is. Paper: as it is."""
    restart: Literal["continue", "from_scratch"] = "from_scratch"
    """Where a KD step's fit starts: at the last weights, or at the pretrained ones. Paper: continue."""
    refit: bool | None = None
    """Whether the model that is returned is trained once more in the end, from the beginning, with the validation rows
    among its rows: by then they have chosen it. The plain student is too, where test rows compare the two. None takes
    the student's own (bert-base no, minilm and mpnet yes, unless `restart` is `continue` or `head_init` is
    `random`). Paper: no."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    bf16: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    """Whether training computes in bf16, with float32 weights; `auto` only where the hardware does so natively."""


def provider_of(spec: str) -> str:
    """Of a teacher `provider:model`."""
    return spec.partition(":")[0]


class EnsembleMember(_Settings):
    """A further teacher; all that is not named here is as for the first."""

    spec: str
    """As `teacher.spec`."""
    base_url: str | None = None
    """As `teacher.base_url`; None takes the first teacher's where the provider is the same."""


class TeacherSettings(_Settings):
    spec: str = "local:smollm2"
    """`local:smollm2`, `local:/path/model.gguf`, `openai:NAME`, `provider:NAME`. Paper: Claude 3 Sonnet."""
    base_url: str | None = None
    """Another server that speaks the OpenAI protocol."""
    mode: Literal["chain", "agent"] = "chain"
    """`chain` puts the report into the prompt, `agent` lets the model ask for it. Paper: chain."""
    prices: Path | None = None
    """Price table (YAML) that replaces the one of the package; `schemas/prices.schema.json` has its form."""
    prompt: str | None = None
    """Prompt variant or path of a template; None: `per_class` for local teachers, else `paper`."""
    label_prompt: str = "candidates"
    """Variant under `prompts/annotate`, or a path, for texts that the teacher labels."""
    prompt_folder: Path | None = None
    """Folder of one's own variants, laid out like `prompts/`; looked through before those of the package."""
    structured: Literal["auto", "json_schema", "json_object", "tool", "text"] = "auto"
    """How the answer's form is asked for: its JSON Schema sent along, JSON of any form, a tool to be called, or the
    prompt alone; `auto` takes the first of these that the provider is known to take, and the next where it refuses."""
    samples_per_request: int = Field(default=5, ge=1)
    """Samples asked for at a time by variants about one class or a pair of classes."""
    temperature: float | None = Field(default=0.8, ge=0)
    """Sampling temperature; None leaves it to the provider."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Longest reply; None computes it from the number of samples and the length of the training texts."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds for one call, from its start to the end of the answer."""
    max_concurrency: int | None = Field(default=None, ge=1)
    """Requests under way at once; None: 4 for local teachers, else 8. With more than 1 a local teacher's replies depend
    on what it answers at the same time, and no longer on the seed alone."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Pace of the requests, evenly spaced; None: as they come."""
    cache: Path | None = None
    """SQLite file with replies that runs share; a request that any of them had answered costs nothing. None: only the
    run's own log is looked in."""
    batch: bool = False
    """Ask what can wait by batch jobs of the provider (`openai`, `anthropic`), for half the price and within a day:
    texts to label, rows of an evaluation, the requests of a KD step. What answers people at once never waits."""
    ensemble: tuple[EnsembleMember, ...] = ()
    """Further teachers that take turns with the first, a KD step each."""
    context_tokens: int = Field(default=4096, ge=512)
    """Context window of a `local:` or `ollama:` teacher."""

    @property
    def sets_context(self) -> bool:
        """Whether `context_tokens` is the context of this teacher, for prompt and reply together."""
        return self.spec.startswith(("local:", "ollama:"))

    @property
    def is_local(self) -> bool:
        """Whether the model runs inside this process."""
        return self.spec.startswith("local:")

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""
        return self.max_concurrency or (4 if self.is_local else 8)


class ZeroShotSettings(_Settings):
    """For classification by the teacher itself; provider, server and time-outs are those of `teacher`."""

    prompt: str = "paper"
    """Variant under `prompts/zero_shot`, or a path. Paper: its Appendix A.2."""


class EvidenceSettings(_Settings):
    source: Literal["dynamics", "history", "out_of_fold"] = "dynamics"
    """Where the student's rights and wrongs come from: `dynamics`, the mean predicted probability over
    the fit's epochs; `history`, its predictions after the fit; `out_of_fold`, predictions of models that were
    not trained on the row (three more fits a step, to labels as they are). Paper: history."""
    few_shot: int = Field(default=16, ge=0)
    """Real training rows shown as examples. Paper: 16."""
    correct: int = Field(default=16, ge=0)
    """Paper: 16."""
    misclassified: int = Field(default=16, ge=0)
    """Paper: 16."""
    hard_negatives: int = Field(default=16, ge=0)
    """Paper: 16."""


class GuardrailSettings(_Settings):
    near_duplicate_ratio: float = Field(default=90.0, ge=0, le=100)
    """Likeness (rapidfuzz `ratio`, 0 to 100) from which a sample counts as a repetition."""
    verify: bool = False
    """Have the teacher label what the other rules let through, a call a sample, as `zero_shot` says; a sample whose
    label it does not repeat is rejected."""


class PGKDSettings(_Settings):
    num_kd_steps: int = Field(default=10, ge=0)
    """Requests to the teacher; 0 trains the plain student alone. Paper: 10."""
    patience_limit: int = Field(default=5, ge=0)
    """KD steps without a lower validation loss that are tolerated. Paper: 5."""
    pgkd_batch_size: int = Field(default=32, ge=0)
    """Samples that the teacher writes in a KD step; 0 only where it labels texts. Paper: 32."""
    labels_per_step: int = Field(default=100, ge=0)
    """Texts of `--unlabelled` that the teacher labels in a KD step."""
    label_choice: Literal["unsure", "drawn"] = "unsure"
    """Of which texts: those that the student is least sure of, or drawn ones, as for a comparison."""


class BudgetSettings(_Settings):
    """Caps of a run, None for none. A request that could exceed one is not sent; the run ends with its best model."""

    max_usd: float | None = Field(default=None, ge=0)
    """In the currency of the price table; needs a price for the teacher."""
    max_calls: int | None = Field(default=None, ge=0)
    """Model calls, failed ones included."""
    max_tokens: int | None = Field(default=None, ge=0)
    """Tokens of prompts and replies together."""
    max_minutes: float | None = Field(default=None, ge=0)
    """From the start; requests end in time for one more fit as long as the last one, or are given up."""


class PGKDConfig(_Settings):
    """Settings of one run."""

    seed: int = Field(default=0, ge=0)
    """All randomness derives from it."""
    data: DataSettings = DataSettings()
    student: StudentSettings = StudentSettings()
    teacher: TeacherSettings = TeacherSettings()
    zero_shot: ZeroShotSettings = ZeroShotSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    guardrails: GuardrailSettings = GuardrailSettings()
    budget: BudgetSettings = BudgetSettings()
    pgkd: PGKDSettings = PGKDSettings()
