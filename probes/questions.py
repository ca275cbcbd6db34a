"""What a model is asked on validation episodes: which quantities, at which frames; the same for every checkpoint."""

from __future__ import annotations

from typing import Any

from lewm.clip import Interface
from lewm.datasets.schema import Source
from lewm.probes.cache import Cache
from lewm.probes.features import ModelReader, extract
from lewm.probes.frames import union
from lewm.probes.parts import plan
from lewm.probes.quantities import Reading, observe, read
from lewm.probes.targets import Quantity


class Questions:
    """Frames and values, found once; probes of an embedding, fitted on train and measured on validation episodes.

    UserError where there are too few validation episodes, or a quantity cannot be probed there.
    """

    def __init__(
        self, source: Source, quantities: list[Quantity], interface: Interface, *, max_frames: int, seed: int
    ) -> None:
        self.source, self.seed = source, seed
        self.plan = plan(source, "val", interface.split_seed, seed)
        about = {"history": interface.history, "frameskip": interface.frameskip}
        self.values = [observe(source, quantity, self.plan, max_frames, **about) for quantity in quantities]
        self.frames = union([values.needed for values in self.values])

    def ask(self, model: Any, probes: tuple[str, ...], cache: Cache | None = None) -> list[dict[str, Reading]]:
        """Readings of each quantity from a model's embedding, by probe."""
        table = extract(self.source, self.frames, [ModelReader(model, ("embedding",))], cache)
        return [
            {probe: read(table, v, self.plan, "embedding", probe, seed=self.seed) for probe in probes}
            for v in self.values
        ]
