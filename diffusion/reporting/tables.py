"""Tables of scores: a row for each run, or each of its evaluations, a column for each score, a mark in each cell."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion.evaluation.metrics.intervals import of_mean
from diffusion.reporting.run import Run
from diffusion.reporting.scores import Score, marks, own_scores

HOW = ("sampler", "discretization", "steps", "guidance", "threshold", "weights", "n", "seed", "negative", "file")


Scored = tuple[int, str, str, Mapping[str, Score]]  # run, label, how, scores


@dataclasses.dataclass(frozen=True)
class Cell:
    score: Score | None
    mark: str
    why: str


@dataclasses.dataclass(frozen=True)
class Column:
    """about: n, features and reference, where they are the same for all."""

    name: str
    better: str | None
    about: str


@dataclasses.dataclass(frozen=True)
class Row:
    """run: its number, for the colour; how: what distinguishes this evaluation."""

    run: int
    label: str
    how: str
    cells: list[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    columns: list[Column]
    rows: list[Row]
    folded: bool = False

    @property
    def reasons(self) -> list[str]:
        """Why some numbers may not be compared with the best of their column, each once: footnotes."""
        return list(dict.fromkeys(cell.why for row in self.rows for cell in row.cells if cell.mark == "apart"))


def own_table(runs: Sequence[Run], labels: Sequence[str]) -> Table:
    """What train.py measured."""
    rows = [(i, label, "", own_scores(run)) for i, (run, label) in enumerate(zip(runs, labels, strict=True))]
    return table("At the end of training", with_means(rows, [(but_seed(run), run.cfg.seed) for run in runs]))


def evaluation_tables(runs: Sequence[Run], labels: Sequence[str]) -> list[Table]:
    """What evaluation=full measured; classes on their own."""
    records = [(i, label, record) for i, (run, label) in enumerate(zip(runs, labels, strict=True))
               for record in run.evaluations]
    varied = [key for key in HOW if len({str(record.get(key)) for _, _, record in records}) > 1]
    rows = [(i, label, ", ".join(f"{key} {record.get(key)}" for key in varied), record["scores"])
            for i, label, record in records]
    rows = with_means(rows, [(but_seed(runs[i]) + str([record.get(key) for key in HOW if key != "seed"]),
                              (runs[i].cfg.seed, record.get("seed"))) for i, _, record in records])
    fixed = ", ".join(f"{key} {record[key]}" for _, _, record in records[:1] for key in HOW
                      if key not in varied and record.get(key) is not None)
    whole = [(*row[:3], {k: v for k, v in row[3].items() if not k.startswith("class/")}) for row in rows]
    classes = [(*row[:3], {k: v for k, v in row[3].items() if k.startswith("class/")}) for row in rows]
    return [table(f"Evaluations: {fixed}", whole), table("Evaluations, by class", classes, folded=True)]


def but_seed(run: Run) -> str:
    """All that was asked for, the seed left out."""
    return json.dumps({key: value for key, value in run.settings.items() if key != "seed"}, sort_keys=True, default=str)


def with_means(rows: Sequence[Scored], told: Sequence[tuple[str, Any]]) -> list[Scored]:
    """Behind rows that differ in their seed alone, their mean with Student's interval over the seeds.

    told  of each row, all but its seed, and the seed
    """
    groups: dict[str, list[Scored]] = {}
    seeds: dict[str, set] = {}
    for row, (key, seed) in zip(rows, told, strict=True):
        groups.setdefault(key, []).append(row)
        seeds.setdefault(key, set()).add(seed)
    out = []
    for key, group in groups.items():
        out += group
        if len(seeds[key]) == len(group) > 1:
            first, shared = group[0], [name for name in group[0][3] if all(name in scores for *_, scores in group)]
            found = {name: of_mean(torch.tensor([scores[name]["value"] for *_, scores in group])) for name in shared}
            out.append((first[0], f"{first[1]}, mean of {len(group)} seeds", first[2],
                        {name: {**first[3][name], **vars(found[name])} for name in shared}))
    return out


def table(title: str, rows: Sequence[Scored], folded: bool = False) -> Table:
    """Columns in the order in which scores first appear."""
    names = list(dict.fromkeys(name for *_, scores in rows for name in scores))
    columns, cells = [], [[] for _ in rows]
    for name in names:
        scores = [row[3].get(name) for row in rows]
        for line, score, (mark, why) in zip(cells, scores, marks(scores), strict=True):
            line.append(Cell(score, mark, why))
        given = [score for score in scores if score]
        columns.append(Column(name, given[0]["better"], about(given)))
    return Table(title, columns, [Row(i, label, how, line) for (i, label, how, _), line in zip(rows, cells)], folded)


def about(scores: Sequence[Score]) -> str:
    """n = 300, reference 2000, features 73df3065."""
    words = {"n": "n", "reference_n": "reference", "features_hash": "features"}
    same = {word: scores[0].get(key) for key, word in words.items() if len({s.get(key) for s in scores}) == 1}
    return ", ".join(f"{word} {str(value)[:8]}" for word, value in same.items() if value is not None)
