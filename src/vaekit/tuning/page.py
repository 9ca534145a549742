"""The page about a sweep: its result with the uncertainty, all trials, the options, and the method."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit import figures
from vaekit.errors import RunError
from vaekit.figures import Mark
from vaekit.metrics import METRICS
from vaekit.report.about import duration, shown_path
from vaekit.report.blocks import Block, Chapter, Code, Section, Table, Text, plot
from vaekit.report.page import render
from vaekit.runs.stored import read_log
from vaekit.studies.words import Estimate, direction, estimate, number
from vaekit.utils.files import write_text
from vaekit.utils.wording import worded

from .analysis import estimated
from .commands import continuing
from .records import Judge, Trial, shown
from .stored import StoredSweep, across_seeds

if TYPE_CHECKING:
    from .analysis import Lead

Numbers = dict[str, Any]
CHANCE = 0.05
"""Trials that are the best in at least this share of the resampled validation data are named as candidates."""


def write_sweep(sweep: StoredSweep, path: Path) -> Path:
    """Write one self-contained page about a sweep, and return its path.

    Raises:
        RunError: the page cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path.parent}: {error.strerror}; choose another `path`") from error
    over, data = ", ".join(sweep.settings["over"]), sweep.settings["data"]["name"]
    title = f"{sweep.settings['recipe']} on {data}: sweep over {over}"
    sections = [_result(sweep), _trials(sweep), _curves(sweep), _options(sweep), _method(sweep)]
    chapter = Chapter("sweep", title, facts(sweep), "finished", [], [s for s in sections if s.blocks])
    write_text(path, render(title, [], [chapter], "vaekit tune"))
    return path


def facts(sweep: StoredSweep) -> list[str]:
    """The line under the title: date, trials by state, and time."""
    now = datetime.now(UTC)
    states = [one.state for one in sweep.trials]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    seconds = sum(one["seconds"] for one in sweep.settings["sessions"])
    return [f"{now.day} {now:%B %Y}", f"{len(states)} trials", *counts, duration(seconds)]


# --- the result -------------------------------------------------------------------------------------------------


def sentences(sweep: StoredSweep) -> list[str]:
    """The result in words: the best trial, how sure its lead is, and how much of it is selection."""
    if not sweep.ranked:
        return ["No trial has finished. Continue the sweep with more `minutes`, or start one with shorter trials."]
    if len(sweep.metrics) > 1:
        names = " and ".join(METRICS[one["name"]].label.lower() for one in sweep.metrics)
        return [f"{len(sweep.front)} of {len(sweep.ranked)} finished trials are on the Pareto front of {names}."]
    best, judge = sweep.best, sweep.metrics[0]
    said = [f"{best.name} is the best of {len(sweep.ranked)} finished trials: {_with_unit(best, judge)} on validation "
            f"data, with {settings(best)}."]  # fmt: skip
    if sweep.lead is not None:
        said += lead_in_words(sweep.lead, METRICS[judge["name"]].unit)
    likely = {name: share for name, share in sweep.chances.items() if share >= CHANCE}
    if len(likely) > 1:
        shares = ", ".join(f"{name} in {share:.0%}" for name, share in sorted(likely.items(), key=lambda o: -o[1]))
        said.append(f"On resampled validation data, the best trial would be {shares}.")
    confirmed = sweep.confirmed()
    again = across_seeds(confirmed, best.name, sweep.ranked[1].name) if len(sweep.ranked) > 1 else None
    if again is not None:
        sign = 1 if judge["better"] == "higher" else -1
        gain = Estimate(sign * again.value, again.se, again.degrees)
        verdict = {1: "is confirmed", -1: "is reversed", 0: "is not significant"}[direction(gain)]
        said.append(f"Trained again with {len(confirmed[best.name])} other seeds, the lead of {best.name} over "
                    f"{sweep.ranked[1].name} {verdict}: {gain.text()} {METRICS[judge['name']].unit} on test data, with "
                    "the standard error over seeds.")  # fmt: skip
    elif len(sweep.ranked) > 1:
        said.append("All trials have the same seed. Another seed may reverse leads of this size; `confirm` trains the "
                    "best trials again with other seeds.")  # fmt: skip
    return said


def lead_in_words(lead: Lead, unit: str) -> list[str]:
    """The lead of the best trial on the data that chose it and on those that did not, and the difference."""
    said = [f"Its lead over {lead.second} is {lead.valid.text()} {unit} on validation data, paired by example. These "
            "data chose it, so this number is too high on average."]  # fmt: skip
    if lead.test is None or lead.selection is None:
        return said
    said.append(f"On test data, which had no part in the choice, the lead is {lead.test.text()} {unit}, "
                f"{'' if direction(lead.test) else 'not '}significant at 5%.")  # fmt: skip
    selection, known = lead.selection, "" if direction(lead.selection) else ", which may be chance"
    said.append(f"The difference, {selection.text()} {unit}{known}, estimates how much of the lead is selection.")
    return said


def settings(trial: Trial) -> str:
    """The settings of a trial as text."""
    return ", ".join(f"{name} {shown(value)}" for name, value in trial.settings.items())


def _with_unit(trial: Trial, judge: Judge) -> str:
    metric = METRICS[judge["name"]]
    return f"{metric.label} {estimated(trial, judge).text()} {metric.unit}"


def _result(sweep: StoredSweep) -> Section:
    blocks: list[Block] = [Text(worded(said)) for said in sentences(sweep)]
    if not sweep.ranked:
        return Section("result", "Result", blocks)
    if len(sweep.metrics) > 1:
        blocks += _front(sweep)
    for one in sweep.front[:3]:
        title = "Train it again" if len(sweep.front) == 1 else f"Train {one.name} again"
        blocks.append(Code(title, sweep.command(one)))
    return Section("result", "Result", blocks)


def _front(sweep: StoredSweep) -> list[Block]:
    """The plane of the first two metrics with the Pareto front."""
    on, (a, b) = [one.name for one in sweep.front], sweep.metrics[:2]
    groups = {
        name: ([t.values[a["name"]] for t in trials], [t.values[b["name"]] for t in trials])
        for name, trials in (("Pareto front", sweep.front), ("other", [t for t in sweep.ranked if t.name not in on]))
        if trials
    }
    labels = [f"{METRICS[j['name']].label}, {METRICS[j['name']].unit} ({j['better']} is better)" for j in (a, b)]
    elbo = {a["name"], b["name"]} == {"rate", "distortion"}
    caption = "Finished trials on validation data." + (" The ELBO is constant along the thin lines." if elbo else "")
    return [
        plot("front", lambda: figures.scatter(groups, labels[0], labels[1], equal_sum=elbo),
             f"Scatter plot of {labels[1]} against {labels[0]}", caption)
    ]  # fmt: skip


# --- trials -----------------------------------------------------------------------------------------------------


def _trials(sweep: StoredSweep) -> Section:
    """All trials: finished ones from the best, then the others."""
    judge, one_metric = sweep.metrics[0], len(sweep.metrics) == 1
    order = [*sweep.ranked, *(t for t in sweep.trials if t.state != "finished")]
    options = list(sweep.settings["over"])
    beside = [name for name in ("elbo", "rate", "distortion") if any(name in t.beside for t in order)]
    scores, tested, chances = sweep.scores(), sweep.scores("test"), sweep.chances if one_metric else {}
    head = ["trial", *options, *(METRICS[j["name"]].label for j in sweep.metrics)]
    head += ["behind the best", "best in"] if one_metric else []
    head += [f"{METRICS[j['name']].label} on test data" for j in sweep.metrics]
    head += [METRICS[name].label for name in beside] + ["steps", "time", "state"]
    rows = []
    for t in order:
        done = t.state == "finished"
        row = [t.name, *(shown(t.settings[name]) if name in t.settings else "–" for name in options)]
        row += [estimated(t, j).text() if done else "–" for j in sweep.metrics]
        if one_metric:
            row += [_behind(judge, sweep.ranked[0].name, t.name, scores) if done else "–",
                    f"{chances[t.name]:.0%}" if t.name in chances else "–"]  # fmt: skip
        row += [_tested(j["name"], tested.get(t.name, {})) for j in sweep.metrics]
        row += [number(t.beside[name]) if name in t.beside else "–" for name in beside]
        rows.append([*row, f"{t.steps:,}", duration(t.seconds), f"failed: {t.why}" if t.why else t.state])
    caption = (
        f"On the first {sweep.settings['rows']:,} validation examples, ± standard error over examples. Differences to "
        "the best trial are paired by example. “Best in” is the share of resampled validation data in which a trial is "
        "the best. The best trials are also measured on test data, which chose nothing. The ELBO has a KL weight of 1, "
        "whatever weight a trial trains with. Pruned trials were stopped early, and have no final number."
    )
    wide = (len(head) - 1,)
    return Section("trials", "Trials", [Table(head, rows, caption, tuple(range(1, len(head) - 1)), wide)])


def _behind(judge: Judge, best: str, name: str, scores: Numbers) -> str:
    from .analysis import lead

    if name == best:
        return "best"
    found = lead(judge, best, name, scores, {})
    return "–" if found is None else found.valid.text()


def _tested(metric: str, scores: Numbers) -> str:
    return estimate(scores[metric], scores.get("group")).text() if metric in scores else "–"


def _curves(sweep: StoredSweep) -> Section:
    """The validation bound of every trial during training."""
    curves: list[Any] = []
    pruned: list[int] = []
    best: int | None = None
    first = sweep.ranked[0].name if sweep.ranked and len(sweep.metrics) == 1 else None
    for t in sweep.trials:
        log = read_log(t.path) if (t.path / "log.jsonl").exists() else []
        valid = [r for r in log if r["kind"] == "valid" and r.get("elbo") is not None]
        if not valid:
            continue
        if t.state != "finished":
            pruned.append(len(curves))
        best = len(curves) if t.name == first else best
        curves.append(([r["step"] for r in valid], [r["elbo"] for r in valid]))
    if not curves:
        return Section("curves", "Learning curves")
    caption = (
        "Validation ELBO during training, with a KL weight of 1 and one sample for each of at most 2,000 examples, "
        "nats per example. Grey: pruned, failed or unfinished trials. Steep beginnings may be cut off."
    )
    picture = plot("curves", lambda: figures.trial_curves(curves, "validation ELBO, nats", pruned, best),
                   "Learning curves of all trials", caption)  # fmt: skip
    return Section("curves", "Learning curves", [picture])


# --- options ----------------------------------------------------------------------------------------------------


def _options(sweep: StoredSweep) -> Section:
    """The metrics against each option, and the importance of each option."""
    section = Section("options", "Options")
    done = [t for t in sweep.trials if t.state == "finished"]
    if not done:
        return section
    log = [name for name, text in sweep.settings["over"].items() if text.endswith(":log")]
    for judge in sweep.metrics:
        label = f"{METRICS[judge['name']].label}, {METRICS[judge['name']].unit}"
        values = [t.values[judge["name"]] for t in done]
        panels = {
            name: ([shown(s) if isinstance(s := t.settings.get(name), tuple) else s for t in done], values)
            for name in sweep.settings["over"]
        }
        top = done.index(sweep.ranked[0]) if len(sweep.metrics) == 1 else None
        section.blocks.append(
            plot(f"slices-{judge['name']}", lambda p=panels, y=label, b=top: figures.slices(p, y, b, log),  # type: ignore[misc]
                 f"Scatter plots of the {label} of each finished trial against each option",
                 f"{label} of each finished trial on validation data. Later trials are darker.")
        )  # fmt: skip
        section.blocks += _importance(sweep, judge)
    return section


def _importance(sweep: StoredSweep, judge: Judge) -> list[Block]:
    from .analysis import ENOUGH

    found = sweep.importance(judge["name"]) if len(sweep.settings["over"]) > 1 else {}
    if not found:
        note = f"The importance of options is estimated if {ENOUGH} or more trials have finished."
        return [Text(note, "note")] if len(sweep.settings["over"]) > 1 else []
    marks = {
        name: Mark(one.value, max(one.value - 2 * one.se, 0.0), min(one.value + 2 * one.se, 1.0))
        for name, one in found.items()
    }
    label = METRICS[judge["name"]].label
    missing = [name for name in sweep.settings["over"] if name not in found]
    left = f" Not estimated: {', '.join(missing)}, which only some trials have." if missing else ""
    caption = (
        f"Share of the variance of {label} over the ranges of the sweep that each option explains alone, relative to "
        "the other options (functional ANOVA of a random forest, Hutter et al. 2014), ± 2 standard deviations over "
        f"halves of the {len(sweep.ranked)} finished trials. Narrow ranges make an option unimportant.{left}"
    )
    picture = plot(
        f"importance-{judge['name']}", lambda: figures.intervals({label: marks}, {label: "share of the variance"}),
        "Importance of each option with its spread", caption,
    )  # fmt: skip
    rows = [[name, Estimate(one.value, one.se).text(2)] for name, one in found.items()]
    return [picture, Table(["option", "importance"], rows, "", numeric=(1,))]


# --- method -----------------------------------------------------------------------------------------------------


def _method(sweep: StoredSweep) -> Section:
    """How trials were chosen, trained, stopped and judged, and the command that continues the sweep."""
    s = sweep.settings
    names = ", ".join(f"{METRICS[j['name']].label} ({j['better']} is better)" for j in s["metrics"])
    fixed = {**s["choices"], **{k: v for k, v in s["training"].items() if k != "seed"}}
    pruned = s["prune"] and len(s["metrics"]) == 1
    stops = (
        "After five finished trials, a trial is stopped if its best validation so far is below the median of the "
        "finished trials at the same validation; not before its third validation."
    )
    rows = [
        ["recipe", s["recipe"]],
        ["options of the sweep", ", ".join(f"{name}={text}" for name, text in s["over"].items())],
        ["options of all trials", ", ".join(f"{k} {shown(v)}" for k, v in fixed.items()) or "the recipe's defaults"],
        ["judged by", f"{names}: the first {s['rows']:,} validation examples, {s['samples']} draws of z each"],
        ["settings chosen by", "tree-structured Parzen estimator of Optuna (Bergstra et al. 2011)"],
        ["pruning", stops if pruned else "none"],
        ["seed", f"{s['seed']}, for the training of every trial and the choice of settings"],
        ["sessions", "; ".join(f"{one['started']}, {duration(one['seconds'])}, {_processes(one['jobs'])}"
                               for one in s["sessions"])],
        ["data", f"{s['data']['name']}, digest {s['data']['digest'][:12]}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in s["versions"].items())],
    ]  # fmt: skip
    blocks: list[Block] = [
        Table([], rows),
        Text("Every trial is a run directory beside this page. The same command continues the sweep; finished trials "
             "are kept."),
        Code("Command", continuing(s, sweep.path, len(sweep.trials) + 20)),
        Code("Python", _python(sweep)),
    ]  # fmt: skip
    return Section("method", "Method", blocks)


def _processes(jobs: int) -> str:
    return "one process" if jobs == 1 else f"{jobs} processes"


def _python(sweep: StoredSweep) -> str:
    path = shown_path(Path(os.path.abspath(sweep.path)))
    lines: Sequence[str] = (
        "from vaekit.tuning import Sweep",
        "",
        f"sweep = Sweep({path!r})",
        "sweep.table()                   # one record for each trial",
        "run = sweep.run(sweep.ranked[0])  # the best trial, opened",
        "sweep.confirm(seeds=3)          # train the two best again with other seeds",
        "sweep.report()                  # write this page again",
    )
    return "\n".join(lines)
