"""The supervised contrastive loss, against its formula and against what it is for."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from pgkd_agent.student.contrast import REMEMBERED, TEMPERATURE, Contrast


def formula(vectors: torch.Tensor, labels: list[int], known: torch.Tensor, known_labels: list[int]) -> float:
    """As Khosla et al. (2020) write it, text by text."""
    everyone, classes, total = normalize(torch.cat([vectors, known])), [*labels, *known_labels], 0.0
    for i, label in enumerate(labels):
        others = [j for j in range(len(everyone)) if j != i]
        scores = {j: float(everyone[i] @ everyone[j]) / TEMPERATURE for j in others}
        whole = torch.tensor(list(scores.values())).logsumexp(dim=0)
        same = [j for j in others if classes[j] == label]
        total -= sum(scores[j] - float(whole) for j in same) / len(same) if same else 0.0
    return total


def test_the_loss_is_that_of_the_paper_over_the_batch_and_what_is_remembered() -> None:
    torch.manual_seed(0)
    contrast = Contrast(0.5)
    first, second = torch.randn(5, 6), torch.randn(4, 6)
    labels, more = [0, 1, 0, 2, 1], [2, 2, 3, 0]  # the only text of class 3 adds nothing
    assert float(contrast.loss(first, torch.tensor(labels))) == pytest.approx(
        0.5 * formula(first, labels, torch.empty(0, 6), []), rel=1e-4
    )
    assert float(contrast.loss(second, torch.tensor(more))) == pytest.approx(
        0.5 * formula(second, more, first, labels), rel=1e-4
    )


def test_what_is_remembered_is_bounded_and_takes_no_gradient() -> None:
    contrast = Contrast(1.0)
    old = torch.randn(3, 4, requires_grad=True)
    contrast.loss(old, torch.tensor([0, 0, 1]))
    new = torch.randn(3, 4, requires_grad=True)
    contrast.loss(new, torch.tensor([0, 1, 1])).backward()
    assert old.grad is None and new.grad is not None and bool(new.grad.isfinite().all())
    for _ in range(3):
        contrast.loss(torch.randn(REMEMBERED // 2, 4), torch.zeros(REMEMBERED // 2, dtype=torch.int64))
    assert contrast._vectors.shape == (REMEMBERED, 4) and len(contrast._labels) == REMEMBERED


def test_following_it_brings_classes_together_and_apart() -> None:
    torch.manual_seed(0)
    vectors, labels = torch.randn(12, 8, requires_grad=True), torch.arange(12) % 3
    optimizer = torch.optim.SGD([vectors], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        Contrast(1.0).loss(vectors, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    cosines = normalize(vectors.detach()) @ normalize(vectors.detach()).T
    same = labels[:, None] == labels[None, :]
    assert cosines[same].min() > cosines[~same].max() + 0.4


def test_a_text_alone_has_no_loss() -> None:
    assert float(Contrast(1.0).loss(torch.randn(1, 4), torch.tensor([0]))) == 0.0
