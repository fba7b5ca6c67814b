"""Loading a bundle onto this machine's GPU: plans found or built, compared, and put to work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from engine.backends.protocol import BackendError
from engine.backends.tensorrt import cuda
from engine.backends.tensorrt.api import NOT_INSTALLED, LoadedPlan, TensorRT, installed
from engine.backends.tensorrt.backend import TensorrtBackend
from engine.backends.tensorrt.build import ARITHMETIC, check_inspected
from engine.backends.tensorrt.cache import Cached, PlanCache, default_directory
from engine.backends.tensorrt.cuda import CudaDevice
from engine.backends.tensorrt.library import PlanLibrary, Report
from engine.backends.tensorrt.parity import verify
from engine.settings import TensorrtSettings
from models.bundle import Bundle
from models.spec import GraphName

log = logging.getLogger(__name__)


def available() -> str | None:
    """Return what is missing for TensorRT on this machine, or None if it can be used."""
    if installed() is None:
        return NOT_INSTALLED
    if (reason := cuda.missing()) is not None:
        return reason
    return next(
        (f'{package} is not installed: pip install -e ".[rtx]"'
         for package in ("onnx", "filelock") if find_spec(package) is None), None
    )  # fmt: skip


def load(
    bundle: Bundle,
    settings: TensorrtSettings,
    report: Report | None = None,
    done: Report | None = None,
) -> TensorrtBackend:
    """Load a bundle onto this machine's GPU, building and checking plans where need be.

    A plan that was never compared with ONNX Runtime here is, and is discarded if it differs.
    What is returned is warmed up.

    Args:
        bundle: the opened bundle.
        settings: precision, largest batch, where plans are kept.
        report: called with what the builder does.
        done: called with the name of each graph whose plan is there.

    Raises:
        BackendError: something is missing, cannot be built, or differs.
    """
    if (reason := available()) is not None:
        raise BackendError(reason)
    api, device = TensorRT(), CudaDevice()
    try:
        return _load(bundle, settings, api, device, report, done)
    except BaseException:
        device.close()  # another backend may run on this GPU instead
        raise


def _load(
    bundle: Bundle,
    settings: TensorrtSettings,
    api: TensorRT,
    device: CudaDevice,
    report: Report | None,
    done: Report | None,
) -> TensorrtBackend:
    cache = PlanCache(settings.plans_dir or default_directory(), settings.foreign_plans)
    library = PlanLibrary(bundle, api, cache, settings.precision, settings.max_batch)
    cached: dict[GraphName, Cached] = {}
    for graph in library.layouts:
        cached[graph] = library.obtain(graph, device.capability, device.name, report)
        if done is not None:
            done(graph)
    plans: dict[GraphName, LoadedPlan] = {}

    def load_plan(graph: GraphName, entry: Cached) -> None:
        plans[graph] = api.load(entry.plan, cache.side_blob(f"{entry.key.stem}.kernels"))

    _each(cache, cached, load_plan)

    def keep_kernels() -> None:
        for graph, plan in plans.items():
            cache.keep_side_blob(f"{cached[graph].key.stem}.kernels", plan.kernel_cache())

    backend = TensorrtBackend(
        device,
        plans,
        library.layouts,
        ARITHMETIC[settings.precision],
        settings.max_batch,
        settings.cuda_graphs,
        keep_kernels,
    )
    unverified = {graph: entry for graph, entry in cached.items() if not entry.verified}
    if unverified:
        from engine.backends.onnx import OnnxBackend

        reference = OnnxBackend(bundle, "cpu", eight_bit=False)

        def compare(graph: GraphName, entry: Cached) -> None:
            check_inspected(plans[graph].inspect(), settings.precision)
            layout = library.layouts[graph]
            parity = verify(graph, layout, backend, reference, settings.precision)
            log.info("%s agrees with ONNX Runtime to %.2g", graph, parity.difference)
            cache.mark_verified(entry)

        _each(cache, unverified, compare)
    backend.warm_up()  # here, so that memory that does not suffice is found out before it is chosen
    return backend


def _each(
    cache: PlanCache,
    entries: Mapping[GraphName, Cached],
    work: Callable[[GraphName, Cached], None],
) -> None:
    """Do something with every plan, and throw away all those that it fails with.

    All of them, so that the next start does not find out about them one by one.
    """
    faults = []
    for graph, entry in entries.items():
        try:
            work(graph, entry)
        except BackendError as error:
            cache.discard(entry.key)
            faults.append(f"{graph}: {str(error).removeprefix(f'{graph}: ')}")
    if faults:
        raise BackendError("; ".join(faults))
