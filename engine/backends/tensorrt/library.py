"""The plans of one bundle: which there must be, and getting each from the cache or the builder."""

from __future__ import annotations

from collections.abc import Callable

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.api import TensorRT
from engine.backends.tensorrt.build import Precision, build, prepared
from engine.backends.tensorrt.cache import Cached, PlanCache, PlanKey
from engine.backends.tensorrt.profiles import Layout, layouts
from models.bundle import Bundle, digest
from models.spec import GraphName

Report = Callable[[str], None]


class PlanLibrary:
    """Plans of a bundle in one precision.

    Args:
        bundle: the opened bundle.
        api: which TensorRT.
        cache: where plans are kept.
        precision: arithmetic of the products.
        max_batch: largest batch of one run.

    Raises:
        BackendError: no graph to build, or ``max_batch`` is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        api: TensorRT,
        cache: PlanCache,
        precision: Precision,
        max_batch: int,
    ) -> None:
        self.bundle = bundle
        self.api = api
        self.cache = cache
        self.precision: Precision = precision
        self.layouts: dict[GraphName, Layout] = layouts(bundle.config, max_batch)
        if "fusion" not in self.layouts:
            raise BackendError(
                f"bundle {bundle.config.name!r} has no ONNX graph of its fusion network"
            )

    def key(self, graph: GraphName, capability: str, gpu: str = "") -> PlanKey:
        """What the plan of a graph depends on, for a GPU of ``capability`` named ``gpu``."""
        # Kernels of data-centre TensorRT are chosen by timing them on the very card.
        device = capability if self.api.builds_without_gpu else f"{gpu} {capability}"
        return PlanKey(
            graph=graph,
            onnx_sha256=digest(self.bundle.path(graph)),
            tensorrt=f"{self.api.kind} {self.api.version}",
            device=device,
            precision=self.precision,
            ranges=self.layouts[graph].ranges,
        )

    def obtain(
        self, graph: GraphName, capability: str, gpu: str = "", report: Report | None = None
    ) -> Cached:
        """Return the plan of a graph, built if need be.

        Raises:
            BackendError: it cannot be built, or not be kept.
        """
        key = self.key(graph, capability, gpu)
        return self.cache.obtain(key, lambda: self._build(graph, key, capability, report))

    def _build(
        self, graph: GraphName, key: PlanKey, capability: str, report: Report | None
    ) -> bytes:
        try:
            model = prepared(
                self.bundle.path(graph).read_bytes(),
                self.precision,
                self.bundle.config.precision,
                heads_low=not self.api.has_wide_products(capability),
            )
            made = build(
                self.api,
                model,
                key.ranges,
                self.precision,
                capability,
                self.cache.side_blob(key.timings),
                report,
            )
        except BackendError as error:
            raise BackendError(f"{graph}: {error}") from None
        except ImportError as error:
            raise BackendError(
                f'{error.name} is needed to build plans: pip install -e ".[rtx]"'
            ) from None
        self.cache.keep_side_blob(key.timings, made.timing_cache)
        return made.plan
