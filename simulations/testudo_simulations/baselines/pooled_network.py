"""A convolutional network trained in one place on the classes of all training clients; used for its features.

Plain cross-entropy, no episodes. Cosine classifier as in Chen et al. 2019 ("A closer look at few-shot
classification"); small random affine maps of the images, worth 2 points at 5-way 1-shot on Omniglot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = 64
LAYERS = 3
BATCH = 64
MAX_STEPS, MIN_STEPS, MAX_EPOCHS = 1200, 150, 40  # 1200 steps at 14 x 14 pixels: 30 to 40 CPU-seconds
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 5e-4
JITTER = 0.1
LOGIT_SCALE = 15.0
LARGE_SIDE = 28  # larger images are averaged down to about half of this: four times as fast

Images = npt.NDArray[np.float32]


def train_pooled_network(
    images: Images, classes: npt.NDArray[np.int64], seed: int
) -> Callable[[Images], npt.NDArray[np.float32]]:
    """Train the network, on one thread.

    Args:
        images: ``float32[n, c, h, w]``.
        classes: ``int64[n]``, numbered from 0.
        seed: Of initialisation, batches and affine maps.

    Returns:
        A function from images ``float32[m, c, h, w]`` to features ``float32[m, f]`` around their training mean.
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images)
        _train(network, torch.from_numpy(images), torch.from_numpy(classes))

    def features(inputs: Images) -> npt.NDArray[np.float32]:
        with _one_thread(), torch.no_grad():
            chunks = torch.split(torch.from_numpy(inputs), 1024)
            return np.concatenate([network(chunk).numpy() for chunk in chunks])

    mean = features(images).mean(axis=0)

    def centred(inputs: Images) -> npt.NDArray[np.float32]:
        return np.asarray(features(inputs) - mean)

    return centred


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small batches lose more to waiting threads than they gain; the caller's setting comes back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _network(images: Images) -> nn.Sequential:
    channels, side = images.shape[1], min(images.shape[2:])
    layers: list[nn.Module] = []
    if side >= LARGE_SIDE:
        factor = side // (LARGE_SIDE // 2)
        layers.append(nn.AvgPool2d(factor))
        side //= factor
    for _ in range(LAYERS):
        layers += [nn.Conv2d(channels, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        if side >= 4:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        channels = CHANNELS
    return nn.Sequential(*layers, nn.Flatten())


def _train(network: nn.Sequential, images: torch.Tensor, classes: torch.Tensor) -> None:
    width = network(images[:2]).shape[1]
    head = nn.Linear(width, int(classes.max()) + 1, bias=False)
    parameters = [*network.parameters(), *head.parameters()]
    steps = min(MAX_STEPS, max(MIN_STEPS, MAX_EPOCHS * len(images) // BATCH))
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,))
        features = network(_jittered(images[rows]))
        logits = LOGIT_SCALE * F.linear(F.normalize(features), F.normalize(head.weight))
        optimizer.zero_grad()
        F.cross_entropy(logits, classes[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval()


def _jittered(images: torch.Tensor) -> torch.Tensor:
    """Every image under a small random affine map of its own."""
    maps = torch.eye(2, 3) + JITTER * torch.randn(len(images), 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
