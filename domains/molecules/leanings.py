"""What the network draws too often, and what that has to cost.

The kinds of atoms and rings (`kinds`) of a model's samples are not spread as those of its training data: seven-membered rings
come twice as often. From the graphs that are nearly as likely as the one decoded, for some thousand samples, costs of kinds
are found with which the decoded ones are spread as the data: a kind's cost rises by part of the logarithm of how much too
often it is drawn, round by round (iterative scaling, Deming & Stephan 1940), and stays between 0 and `MOST`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sciconsist.domains.molecules.adapter import MoleculeDomain
from sciconsist.domains.molecules.decode import CHARGE, Search, near_best, problem_of
from sciconsist.domains.molecules.fulfil import penalty, weighing_of
from sciconsist.domains.molecules.generate import plan_steps, predict, preferred
from sciconsist.domains.molecules.kinds import Kinds, kinds
from sciconsist.domains.molecules.repairs import Totals
from sciconsist.domains.molecules.wishes import NOTHING, draw_told
from sciconsist.flowmap import FlowMap

SEARCH = Search(slack=16.0, most=120, nodes=3000, haste=3.0)
MARGIN = 5.0  # nats beyond the graph decoded that others are considered
MOST = 4.0  # nats a kind may cost
ROUNDS, PART, FEW = 40, 0.25, 6.0  # FEW: atoms or rings of a kind that its two frequencies are shrunk by
STEPS = (2, 4)  # evaluations whose samples are looked at
BATCH = 64
Likely = list[tuple[float, np.ndarray]]  # of one sample: nats and kinds of each graph


def lean(model: FlowMap, samples: int, seed: int, goes_on: Callable[[int], bool] = lambda done: True) -> Kinds:
    """The model's table with the costs that so many samples of each of `STEPS` say.

    `goes_on` is told how many are done; where it says no the table is without costs.
    """
    domain: MoleculeDomain = model.domain
    table = domain.config.kinds.model_copy(update={"costs": []})
    preference = replace(preferred(domain), costs=table.table())
    model.eval()
    found: list[Likely] = []
    for steps in STEPS:
        for begin in range(0, samples, BATCH):
            indices = list(range(begin, min(begin + BATCH, samples)))
            told = draw_told(domain, NOTHING, domain.config.size_histogram, indices, seed)
            for one in predict(model, indices, told, plan_steps(steps), seed):
                found.append([])
                problem = problem_of(one.atoms, one.bonds, domain.vocabulary, one.allowed, Totals(CHARGE))
                if problem is None:
                    continue
                weighing = weighing_of(one.told, preference, domain.vocabulary)
                answer = partial(penalty, weighing=weighing, vocabulary=domain.vocabulary)
                for nats, graph in near_best(problem, answer, SEARCH, weighing, MARGIN):
                    if (own := kinds(graph.classes, graph.orders, domain.vocabulary)) is not None:
                        found[-1].append((nats, own))
            if not goes_on(len(found)):
                return table
    wanted = np.array(table.counts) / table.molecules
    return table.model_copy(update={"costs": costs([one for one in found if one], np.array(table.keys), wanted)})


def costs(samples: Sequence[Likely], keys: np.ndarray, wanted: np.ndarray) -> list[float]:
    """Nats of kinds, `keys` in rising order, that samples' decoded graphs have more often than `wanted`, a molecule's number of
    each."""
    if not samples:
        return [0.0] * len(keys)
    target = wanted * len(samples) + FEW
    graphs = [(k, cost, found[np.isin(found, keys)]) for k, likely in enumerate(samples) for cost, found in likely]
    sample, nats = np.array([k for k, _, _ in graphs]), np.array([cost for _, cost, _ in graphs])
    graph = np.repeat(np.arange(len(graphs)), [len(own) for _, _, own in graphs])
    kind = np.searchsorted(keys, np.concatenate([own for _, _, own in graphs]))
    first = np.flatnonzero(np.diff(sample, prepend=-1))  # a sample's graphs lie together
    worth = np.zeros(len(keys))
    for _ in range(ROUNDS):
        whole = nats + np.bincount(graph, worth[kind], minlength=len(nats))
        chosen = whole == np.minimum.reduceat(whole, first)[sample]
        share = chosen / np.add.reduceat(chosen.astype(float), first)[sample]
        drawn = np.bincount(kind, share[graph], minlength=len(keys)) + FEW
        worth = np.clip(worth + PART * np.log(drawn / target), 0.0, MOST)
    return [round(float(value), 2) for value in worth]
