"""Curves over training: losses of every arm, and what the contrastive loss saw and sampled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ccdcseg.methods import METHODS
from ccdcseg.report.figures import ROLES, Line, Look, arm_look, class_look, line_panel, role_look
from ccdcseg.runs.finished import Arm, FinishedRun
from ccdcseg.runs.history import Epoch

Read = Callable[[Epoch], float]
"""A number of an epoch; NaN where it has none."""

LOSSES = {
    "segmentation_loss": "Training loss without the contrastive term",
    "contrastive_loss": "Contrastive term, weighted",
    "validation_loss": "Validation loss",
}

MOST_CONFUSED = 8
"""Other classes that each is drawn against; where there are more, those that it was taken for most."""
MOST_POINTS = 200
"""Epochs in a line where there are more classes than that."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    look: Look


@dataclass(frozen=True)
class Panel:
    """A small figure with its title."""

    title: str
    figure: Markup


@dataclass(frozen=True)
class PanelGroup:
    """Small figures that share a legend, and what they show."""

    title: str
    text: str
    keys: tuple[Key, ...]
    panels: tuple[Panel, ...]


def learning_curves(arms: Sequence[Arm]) -> PanelGroup | None:
    """Losses and pseudo Dice of every run, a line for each seed; ``None`` where no run has a history."""
    quantities = {name: _reader(name) for name in LOSSES} | {"pseudo_dice": _mean_pseudo_dice}
    titles = LOSSES | {"pseudo_dice": "Pseudo Dice"}
    marks = [(start, arm_look(index)) for index, arm in enumerate(arms) if (start := term_start(arm))]
    panels = []
    for name, read in quantities.items():
        lines = [
            line
            for index, arm in enumerate(arms)
            for run in arm.runs
            for line in _lines(run.history, read, arm_look(index))
        ]
        if lines:
            alt = f"{titles[name]} over the training iterations, a line for each seed of {_names(arms)}."
            label = "Dice" if name == "pseudo_dice" else "loss"
            figure = line_panel(f"curve-{name.replace('_', '-')}", lines, alt, label, marks=marks)
            panels.append(Panel(titles[name], figure))
    if not panels:
        return None
    keys = tuple(Key(arm.label, arm_look(index)) for index, arm in enumerate(arms))
    return PanelGroup(
        "",
        "A line for each seed. Pseudo Dice: over validation patches, mean of the classes. Methods with a loss of "
        "their own in place of or beside CE + Dice show that: such losses do not compare."
        + _starts(arms)
        + _caveat(arms),
        keys,
        tuple(panels),
    )


def term_start(arm: Arm) -> int | None:
    """The step at which the method's term joins the loss; None where it is there from the first, or none."""
    method = METHODS.get(arm.method)
    settings = arm.runs[0].record.settings.get(method.section if method else arm.method)
    return settings.get("start_iteration") or None if isinstance(settings, dict) else None


def _starts(arms: Sequence[Arm]) -> str:
    starts = [f"{arm.label} at step {start}" for arm in arms if (start := term_start(arm))]
    if not starts:
        return ""
    return f" Thin vertical lines: a term joins the loss, at which the curves may jump ({', '.join(starts)})."


def diagnostics(run: FinishedRun, name: str) -> list[PanelGroup]:
    """What the contrastive loss measured and sampled during a run; empty where nothing was stored.

    Args:
        run: of a method with a contrastive loss.
        name: unique on the page, in letters, digits and hyphens.
    """
    history = [epoch for epoch in run.history if epoch.diagnostics]
    first = history[0].diagnostics if history else None
    if first is None:
        return []
    classes = first.classes
    step = math.ceil(len(history) / MOST_POINTS) if len(classes) - 1 > MOST_CONFUSED else 1
    history = history[::-step][::-1]  # with the last
    keys = tuple(Key(label, class_look(index)) for index, label in enumerate(classes))
    found = (
        ("Class confidence", _class_panel(f"{name}-confidence", history, classes, "confidence", (0, 1))),
        ("Hard share of the queries", _hard_share(f"{name}-hard", history, classes)),
        ("Similarity to positives", _class_panel(f"{name}-pos", history, classes, "positive_similarity")),
        ("Similarity to negatives", _class_panel(f"{name}-neg", history, classes, "negative_similarity")),
    )
    confidence = PanelGroup(
        "Class confidence and sampling",
        "Confidence: mean probability of the true class over its pixels (Eq. 1). Hard share: hard queries among "
        "all that were sampled. Similarity: of queries to their positives (in CCDC the core of their class) and to "
        "their negatives." + ("" if step == 1 else f" Of {step} epochs one is drawn, here and below."),
        keys,
        tuple(Panel(title, figure) for title, figure in found if figure is not None),
    )
    return [confidence, _confusion(name, history, classes, keys), _counts(name, history, classes)]


def _class_panel(
    name: str,
    history: Sequence[Epoch],
    classes: Sequence[str],
    quantity: str,
    limits: tuple[float, float | None] | None = None,
) -> Markup | None:
    """A line a class; None where the loss has no such thing."""
    lines = [
        line
        for index in range(len(classes))
        for line in _lines(history, _of_class(quantity, index), class_look(index))
    ]
    if not lines:
        return None
    label = quantity.replace("_", " ")
    return line_panel(name, lines, f"{label} of each class over the training iterations.", label, limits)


def _hard_share(name: str, history: Sequence[Epoch], classes: Sequence[str]) -> Markup | None:
    def read(index: int) -> Read:
        easy, hard = _of_class("queries_easy", index), _of_class("queries_hard", index)
        return lambda epoch: hard(epoch) / ((easy(epoch) + hard(epoch)) or math.nan)

    lines = [
        line for index in range(len(classes)) for line in _lines(history, read(index), class_look(index))
    ]
    if not lines:
        return None
    alt = "Share of hard queries of each class over the training iterations."
    return line_panel(name, lines, alt, "hard / all queries", (0, 1))


def _confusion(
    name: str, history: Sequence[Epoch], classes: Sequence[str], keys: tuple[Key, ...]
) -> PanelGroup:
    def read(row: int, column: int) -> Read:
        return lambda epoch: _number(_item(_item(_seen(epoch, "confusion"), row), column))

    are_all = len(classes) - 1 <= MOST_CONFUSED
    which = "each other class" if are_all else f"the {MOST_CONFUSED} classes that it was taken for most"
    panels = []
    for row, label in enumerate(classes):
        others = [column for column in range(len(classes)) if column != row]
        most = sorted(others, key=lambda column: _total(history, read(row, column)))[-MOST_CONFUSED:]
        lines = [
            line for column in sorted(most) for line in _lines(history, read(row, column), class_look(column))
        ]
        alt = f"Confusion of {label} with {which} over the training iterations."
        panels.append(
            Panel(
                f"{label} taken for",
                line_panel(f"{name}-confusion-{row}", lines, alt, "confusion", (0, None)),
            )
        )
    text = (
        "Mean probability of each other class over a class's pixels (Eq. 4), by which CCDC chooses negatives."
    )
    text += "" if are_all else f" Drawn are {which}."
    return PanelGroup("Class confusion", text, keys, tuple(panels))


def _counts(name: str, history: Sequence[Epoch], classes: Sequence[str]) -> PanelGroup:
    roles = ROLES[:3]
    panels = []
    for index, label in enumerate(classes):
        lines = [line for role in roles for line in _lines(history, _of_class(role, index), role_look(role))]
        alt = f"Core, easy and hard pixels of {label} in a batch over the training iterations."
        figure = line_panel(f"{name}-counts-{index}", lines, alt, "pixels a batch", counts=True)
        panels.append(Panel(label, figure))
    text = "Pixels of each class in a batch, logarithmic. In CCDC a class without core pixels has no queries."
    return PanelGroup(
        "Core, easy and hard pixels", text, tuple(Key(role, role_look(role)) for role in roles), tuple(panels)
    )


def _lines(history: Sequence[Epoch], read: Read, look: Look) -> list[Line]:
    """One line, or none where there is no finite value."""
    values = [read(epoch) for epoch in history]
    if not any(math.isfinite(value) for value in values):
        return []
    return [Line([epoch.iteration for epoch in history], values, look)]


def _total(history: Sequence[Epoch], read: Read) -> float:
    return math.fsum(value for value in map(read, history) if math.isfinite(value))


def _reader(name: str) -> Read:
    return lambda epoch: _number(getattr(epoch, name))


def _of_class(quantity: str, index: int) -> Read:
    return lambda epoch: _number(_item(_seen(epoch, quantity), index))


def _seen(epoch: Epoch, quantity: str) -> Any:
    """One quantity of the telemetry; None where there is none."""
    return getattr(epoch.diagnostics, quantity, None)


def _mean_pseudo_dice(epoch: Epoch) -> float:
    scores = [score for score in epoch.pseudo_dice.values() if score is not None]
    return sum(scores) / len(scores) if scores else math.nan


def _item(values: Sequence[Any] | None, index: int) -> Any:
    """An entry that may be null as a whole or in part."""
    return None if values is None else values[index]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _caveat(arms: Sequence[Arm]) -> str:
    """Without patients of its own, nnU-Net's validation measures on the training patients."""
    if all(run.record.patients.validation for arm in arms for run in arm.runs):
        return ""
    return (
        " Not every run held patients back for validation: its validation values are then of its training"
        " patients and say nothing about new ones."
    )


def _names(arms: Sequence[Arm]) -> str:
    return " and ".join(arm.label for arm in arms)
