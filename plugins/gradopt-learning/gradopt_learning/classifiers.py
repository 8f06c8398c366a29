"""The objectives: classifiers of handwritten digits, trained on minibatches or on all data."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradopt import Mistake, Objective
from gradopt.mistakes import did_you_mean
from gradopt.optimisers.torch import group_parameters
from gradopt_learning.batches import ShuffledBatches
from gradopt_learning.digits import NUM_CLASSES, NUM_PIXELS, Samples, load

ACTIVATIONS = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "elu": functional.elu,
    "sigmoid": torch.sigmoid,
}


class Classifier(Objective):
    """Cross-entropy of a classifier of digits, plus l2 / 2 times the squares of its weights (not of its biases).

    A subclass makes its parameters and writes `logits`. The full loss and the metrics are computed in the
    dtype of the run, so what is judged and shown is not rounded by autocast.

    Args:
        batch_size: Training samples of a step; None: all of them, with no epochs.
        accumulate: Micro-batches a batch is cut into, evaluated one after the other: the same step in less memory.
        validation_fraction, test_fraction: Shares of the images that are kept from training.
        data_seed: Of the split and of the order in each epoch; what is drawn does not depend on the run's own seed.
        l2: Weight of the penalty.
        autocast: Evaluate the steps in bfloat16, as `torch.autocast` does.
        groups: {pattern of parameter names: options of the optimiser}, such as {"*.bias": {weight_decay: 0}}.

    Raises:
        Mistake: Values that do not fit together; see the message.
    """

    train_images: Tensor
    train_labels: Tensor

    def __init__(
        self,
        *,
        batch_size: int | None = None,
        accumulate: int = 1,
        validation_fraction: float = 0.15,
        test_fraction: float = 0.15,
        data_seed: int = 0,
        l2: float = 0.0,
        autocast: bool = False,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        data = load(validation_fraction, test_fraction, data_seed)
        self._sizes: dict[str, int] = {}
        for part in ("train", "validation", "test"):
            samples: Samples = getattr(data, part)
            self._sizes[part] = len(samples)
            # They follow the module to its device; not persistent, or each saved state would hold the data.
            self.register_buffer(f"{part}_images", samples.images, persistent=False)
            self.register_buffer(f"{part}_labels", samples.labels, persistent=False)
        if batch_size is not None:
            self.batches = ShuffledBatches(len(data.train), batch_size, accumulate, data_seed)
        elif accumulate != 1:
            raise Mistake(
                f"objective.accumulate={accumulate} cuts a batch into parts, and objective.batch_size=null makes none; "
                f"give objective.batch_size, at most {len(data.train)}"
            )
        if l2 < 0:
            raise Mistake(f"objective.l2 must be >= 0, got {l2}")
        self._check_autocast(autocast)
        self._batch_size, self._accumulate = batch_size, accumulate
        self._l2, self._autocast, self._groups = l2, autocast, groups

    def logits(self, images: Tensor) -> Tensor:
        """The scores of the classes, shape (samples, 10), of images of shape (samples, 64)."""
        raise NotImplementedError

    def forward(self, batch: Tensor | None = None) -> Tensor:
        """The loss on the training samples of these indices, shape (); None: on all of them."""
        if batch is None:
            return self.full_loss()
        there = batch.to(self.train_labels.device)
        with torch.autocast(there.device.type, torch.bfloat16, enabled=self._autocast):
            scores = self.logits(self.train_images[there])
        scores = scores.to(self.train_images.dtype)  # the loss itself is too fine for bfloat16
        return self._penalised(functional.cross_entropy(scores, self.train_labels[there]))

    def full_loss(self) -> Tensor:
        """The loss on all training samples, shape ()."""
        return self._penalised(functional.cross_entropy(self.logits(self.train_images), self.train_labels))

    @torch.no_grad()
    def metrics(self) -> Mapping[str, float]:
        """The share of images of each part that are told right, and the cross-entropy on the validation part."""
        found = {}
        for part, size in self._sizes.items():
            if size == 0:
                continue
            scores, labels = self.logits(getattr(self, f"{part}_images")), getattr(self, f"{part}_labels")
            found[f"{part}_accuracy"] = (scores.argmax(1) == labels).sum().item() / size
            if part == "validation":
                found["validation_loss"] = functional.cross_entropy(scores, labels).item()
        return found

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        """As `groups` says: the first pattern that matches a name counts; what matches none keeps the defaults."""
        return group_parameters(dict(self.named_parameters()), self._groups) if self._groups else ()

    def predict(self, images: Tensor) -> Tensor:
        """The digits shown by images of shape (samples, 64) with values from 0 to 1."""
        with torch.no_grad():
            return self.logits(images).argmax(1)

    def describe(self) -> str:
        """The model, its data and how they are cut into steps."""
        parts = ", ".join(f"{size} {part}" for part, size in self._sizes.items() if size)
        text = f"{self.title()}; digits: {parts} samples"
        if self.batches is not None:
            cut = f" in {self._accumulate} parts" if self._accumulate > 1 else ""
            text += f"; batches of {self._batch_size}{cut}, {self.batches.steps_per_epoch} steps an epoch"
        return text + ("; bfloat16 autocast" if self._autocast else "")

    def title(self) -> str:
        """The model in a few words."""
        return type(self).__name__

    def _penalised(self, entropy: Tensor) -> Tensor:
        """With l2 / 2 times the sum of the squared weights added."""
        if self._l2 == 0:
            return entropy
        return entropy + self._l2 / 2 * torch.stack([p.square().sum() for p in self.parameters() if p.ndim > 1]).sum()

    def _check_autocast(self, autocast: bool) -> None:
        if not autocast:
            return
        if self.train_images.dtype == torch.float64:
            raise Mistake("objective.autocast=true rounds float32 only, not float64; say dtype=float32")
        if self.batches is None:
            raise Mistake(
                "objective.autocast=true is for steps on batches: without them the rounded loss would decide whether "
                f"the run has converged; give objective.batch_size, at most {self._sizes['train']} (all samples)"
            )


class LogisticRegression(Classifier):
    """Multinomial logistic regression on the digits: a convex loss, with one minimum of the weights if l2 > 0.

    It starts from zeros. With l2 = 1 / (C n) it is scikit-learn's `LogisticRegression(C=C)` on n training samples.
    """

    def __init__(
        self,
        l2: Annotated[float, ">= 0"] = 0.001,
        batch_size: Annotated[int, ">= 1"] | None = None,
        accumulate: Annotated[int, ">= 1"] = 1,
        validation_fraction: Annotated[float, ">= 0", "< 1"] = 0.15,
        test_fraction: Annotated[float, ">= 0", "< 1"] = 0.15,
        data_seed: Annotated[int, ">= 0"] = 0,
        autocast: bool = False,
        groups: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            accumulate=accumulate,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            data_seed=data_seed,
            l2=l2,
            autocast=autocast,
            groups=groups,
        )
        self.weight = nn.Parameter(torch.zeros(NUM_CLASSES, NUM_PIXELS))
        self.bias = nn.Parameter(torch.zeros(NUM_CLASSES))

    def logits(self, images: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        return functional.linear(images, self.weight, self.bias)

    def title(self) -> str:
        """See `Classifier.title`."""
        return f"logistic regression, l2 {self._l2:g}"


class MLP(Classifier):
    """A multilayer perceptron on the digits: hidden layers of the given sizes, trained on minibatches.

    It starts from torch's own random weights for linear layers, drawn on the CPU from the run's seed.
    """

    def __init__(
        self,
        hidden: Annotated[Sequence[int], ">= 1"] = (64,),
        activation: Literal["relu", "tanh", "gelu", "silu", "elu", "sigmoid"] = "relu",
        l2: Annotated[float, ">= 0"] = 0.0,
        batch_size: Annotated[int, ">= 1"] | None = 64,
        accumulate: Annotated[int, ">= 1"] = 1,
        validation_fraction: Annotated[float, ">= 0", "< 1"] = 0.15,
        test_fraction: Annotated[float, ">= 0", "< 1"] = 0.15,
        data_seed: Annotated[int, ">= 0"] = 0,
        autocast: bool = False,
        groups: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            accumulate=accumulate,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            data_seed=data_seed,
            l2=l2,
            autocast=autocast,
            groups=groups,
        )
        if activation not in ACTIVATIONS:
            near = did_you_mean(activation, ACTIVATIONS)
            raise Mistake(f"objective.activation={activation} is not one of {', '.join(ACTIVATIONS)}.{near}")
        self._sizes_of_layers = (NUM_PIXELS, *hidden, NUM_CLASSES)
        self._activation = activation
        with torch.device("cpu"):  # a GPU would draw other numbers from the same seed
            pairs = zip(self._sizes_of_layers[:-1], self._sizes_of_layers[1:], strict=True)
            self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)

    def logits(self, images: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        *inner, last = self.layers
        for layer in inner:
            images = ACTIVATIONS[self._activation](layer(images))
        return last(images)

    def title(self) -> str:
        """See `Classifier.title`."""
        return f"MLP {'-'.join(map(str, self._sizes_of_layers))}, {self._activation}"
