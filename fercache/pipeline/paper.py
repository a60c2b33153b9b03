"""The rows of the paper's two tables (Mao, Fan, Peng 2021), and its numbers for them."""

from __future__ import annotations

from dataclasses import dataclass

from fercache.errors import ConfigError
from fercache.models.heads import HEADS, head_entry
from fercache.pipeline.steps import HeadRun, System


@dataclass(frozen=True)
class PaperCNN:
    """A CNN of the tables; the config's `reproduce` names its weights."""

    title: str
    arch: str
    source: str
    """Where to get its weights."""


ALBANIE = "from Samuel Albanie's PyTorch models (robots.ox.ac.uk/~albanie/pytorch-models.html)"
PAPER_CNNS = {
    "vggface": PaperCNN("VGG-Face (baseline)", "vggface", f"vgg_face_dag.pth, {ALBANIE}"),
    "resnet50": PaperCNN("ResNet50", "resnet50", "none for random numbers, or imagenet"),
    "vggface2": PaperCNN("ResNet50 (VGGFace2)", "resnet50", f"resnet50_ft_dag.pth, {ALBANIE} or github.com/ox-vgg"),
}


@dataclass(frozen=True)
class TableRow:
    """A row: a CNN, alone or in an ensemble with heads."""

    task: str
    cnn: str
    heads: tuple[str, ...] = ()

    @classmethod
    def parse(cls, task: str, text: str) -> TableRow:
        """The row that the config writes as CNN or CNN+HEAD+HEAD; ConfigError where it is none."""
        cnn, *heads = text.split("+")
        if cnn not in PAPER_CNNS or not set(heads) <= HEADS.keys() or len(set(heads)) < len(heads):
            expected = f"{', '.join(PAPER_CNNS)}, and +{', +'.join(HEADS)} behind it"
            raise ConfigError(f"reproduce.{task}: found {text!r}, expected one of {expected}")
        return cls(task, cnn, tuple(heads))

    @property
    def name(self) -> str:
        """As the config writes it."""
        return "+".join((self.cnn, *self.heads))

    @property
    def title(self) -> str:
        """As the table has it."""
        return " + ".join([PAPER_CNNS[self.cnn].title, *(head_entry(head).title for head in self.heads)])

    @property
    def system(self) -> System:
        """What gives its predictions."""
        return System(tuple(map(HeadRun, self.heads)))


PAPER_SCORES = {
    TableRow("expr", "vggface"): (0.30, 0.50, 0.36),
    TableRow("expr", "resnet50"): (0.3763, 0.5713, 0.4402),
    TableRow("expr", "vggface2"): (0.4124, 0.6216, 0.4815),
    TableRow("expr", "vggface2", ("gru",)): (0.4126, 0.6220, 0.4817),
    TableRow("expr", "vggface2", ("transformer",)): (0.4127, 0.6221, 0.4818),
    TableRow("expr", "vggface2", ("gru", "transformer")): (0.4133, 0.6216, 0.4821),
    TableRow("au", "vggface"): (0.40, 0.22, 0.31),
    TableRow("au", "vggface2"): (0.4701, 0.8768, 0.6734),
}
"""F1, accuracy and E of Table 1 (expressions) and Table 2 (action units)."""
