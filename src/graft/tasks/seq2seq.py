"""Text to text: a summary, a title, a translation."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import annotated_types
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from graft.backbones.base import Backbone
from graft.backbones.vocabulary import Vocabulary
from graft.config.types import Count, FractionBelowOne
from graft.data.sampling import rank_and_world
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.heads.decoding import DecoderOutputs, token_sums
from graft.tasks.base import Task
from graft.tasks.target_tokens import TargetTokens
from graft.tasks.text_metrics import Perplexity, Rouge, TokenAccuracy
from graft.terms.processes import summed

WORDS = "words"  # in the fitted state


class Seq2Seq(Task):
    """Writes a text; labels are TargetTexts, and a decoder's DecoderOutputs predict them.

    Training and the loss see the right tokens before each one (teacher forcing); a prediction sees its own.
    """

    name = "seq2seq"
    main_metric = "rougeL"
    validated = ("loss", "rouge1", "rouge2", "rougeL", "token_acc", "perplexity")
    label_kind = "texts"
    scores_training = False
    writes = True

    def __init__(
        self,
        vocabulary: Literal["own", "input"] = "own",
        max_words: Count = 8000,
        min_count: Count = 1,
        max_length: Count = 24,
        width: Annotated[int, annotated_types.Interval(ge=1, le=64)] = 1,
        length_penalty: Annotated[float, annotated_types.Ge(0)] = 1.0,
        label_smoothing: FractionBelowOne = 0.0,
    ) -> None:
        """`vocabulary`: `own`, the words of the training labels, or `input`, the backbone's tokens.

        `max_length` is in tokens. `width` is the number of beams, 1 for greedy decoding; `length_penalty` is the power
        of a text's length by which its log-likelihood is divided where beams compare.
        """
        self.vocabulary = vocabulary
        self.max_words = max_words
        self.min_count = min_count
        self.max_length = max_length
        self.width = width
        self.length_penalty = length_penalty
        self.label_smoothing = label_smoothing
        self._tokens: TargetTokens | None = None

    @property
    def tokens(self) -> TargetTokens:
        """What makes texts into ids; there once the task has seen labels, or the backbone."""
        assert self._tokens is not None
        return self._tokens

    def fit(self, labels: Any) -> None:
        """Make the vocabulary of the training labels, where it is their own."""
        if self.vocabulary == "own":
            self._tokens = TargetTokens(Vocabulary(labels.texts, self.max_words, self.min_count), self.max_length)

    def see_backbone(self, backbone: Backbone) -> None:
        """Take over the backbone's tokens, where the vocabulary is the input's."""
        if self.vocabulary != "input":
            return
        tokenizer = getattr(backbone, "tokenizer", None)
        if tokenizer is None:
            raise GraftError(
                f"task.vocabulary=input: the {backbone.modality} backbone {backbone.name} has no tokens. Set "
                "task.vocabulary=own, or choose a backbone for texts."
            )
        self._tokens = TargetTokens(tokenizer, self.max_length)

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """The size of the vocabulary."""
        if self._tokens is None:
            raise GraftError(
                "task=seq2seq learns its vocabulary from the target's labels, and there are none. Set "
                "task.vocabulary=input, or data.target_setting=supervised."
            )
        return self._tokens.size

    def loss(self, logits: Any, labels: Any, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy with label smoothing, the mean over the tokens of a batch."""
        sums = token_sums(*self.forced(logits, labels), self.label_smoothing)
        return -sums[:, 0].sum() / sums[:, 2].sum()

    def training_loss(self, logits: Any, labels: Any, class_weights: Tensor | None = None) -> Tensor:
        """The same; of several processes the mean over the tokens of all of them, once their gradients are averaged."""
        sums = token_sums(*self.forced(logits, labels), self.label_smoothing)
        return -sums[:, 0].sum() * rank_and_world()[1] / summed(sums[:, 2].sum())

    def plain_loss(self, logits: Any, labels: Any) -> Tensor:
        """Cross entropy, the mean over the tokens of a batch."""
        total, tokens = self.summed_loss(logits, labels)
        return total / tokens

    def summed_loss(self, logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Cross entropy summed over the tokens of a batch, and their number."""
        sums = token_sums(*self.forced(logits, labels))
        return -sums[:, 0].sum(), sums[:, 2].sum()

    def forced(self, logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Logits `(B, T, V)` of each token of the labels given those before it, and the tokens `(B, T)`."""
        outputs: DecoderOutputs = logits
        ids = self.tokens.ids(labels.texts).to(outputs.device)
        return outputs.forced(ids), ids

    @property
    def smooths_labels(self) -> bool:
        """Whether there is label smoothing."""
        return self.label_smoothing > 0

    def compared(self, logits: Any, labels: Any) -> tuple[Any, Any, Any]:
        """Written texts, labels, and of each text the sums `(B, 3)` of TokenSums."""
        return self.predictions(logits), labels, token_sums(*self.forced(logits, labels))

    def predictions(self, logits: Any) -> Any:
        """Texts, written token by token."""
        ids = logits.written(self.max_length, self.width, self.length_penalty, self.tokens.unwritten)
        return TargetTexts(self.tokens.texts(ids))

    def decide(self, predictions: Any) -> Any:
        """The same texts."""
        return predictions

    def probabilities(self, predictions: Any) -> None:
        """None: a text is none of several classes."""
        return None

    def energy(self, logits: Any) -> None:
        """None: there is no set of classes."""
        return None

    def targets(self, labels: Any) -> Any:
        """The texts."""
        return labels

    def state_dict(self) -> dict[str, Any]:
        """The words of a vocabulary of its own."""
        return {WORDS: self.tokens.tokenizer.words} if self.vocabulary == "own" else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over another task's words."""
        if self.vocabulary == "own":
            self._tokens = TargetTokens(Vocabulary.of_words(state[WORDS]), self.max_length)

    def metrics(self, num_outputs: int) -> MetricCollection:
        """ROUGE of the written texts, and what the decoder makes of the right ones."""
        metrics: dict[str, Metric | MetricCollection] = {
            "rouge": Rouge(),
            "token_acc": TokenAccuracy(),
            "perplexity": Perplexity(),
        }
        return MetricCollection(metrics, compute_groups=False)
