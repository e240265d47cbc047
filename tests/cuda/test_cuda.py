"""`eplb_np.cuda` where there is no GPU, and the parts of it that need none."""

import ctypes
import pickle
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from support import output_of, refused

import eplb_np
from eplb_np import cuda
from eplb_np._cuda import device as _device
from eplb_np._cuda import launch as _launch
from eplb_np._cuda.dlpack import ImportedArray, import_array
from eplb_np._loads.device import as_host_load
from eplb_np.stages.cuda_scratch import scratch_bytes

LOAD = np.arange(12.0)[None]
SIZES = {"num_replicas": 16, "num_gpus": 4}

needs_no_gpu = pytest.mark.skipif(cuda.is_available(), reason="there is a GPU")


@needs_no_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda: cuda.rebalance_experts(LOAD, 16, 4, 2, 4),
        lambda: cuda.rebalance_experts_hierarchical(LOAD, 16, 4, 2, 4),
        lambda: cuda.replicate_experts(LOAD, 16),
        lambda: cuda.balanced_packing(LOAD, 4),
        lambda: eplb_np.make_plan(LOAD, **SIZES, policy="hybrid", device="cuda"),
    ],
)
def test_without_a_gpu_the_error_says_what_is_missing(call):
    with pytest.raises(cuda.DeviceError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "there is no GPU to plan on",
        "driver",
        "pip install 'eplb-np[cuda13]'",
        "[cuda12]",
    ):
        assert part in message
    assert eplb_np.make_plan(LOAD, **SIZES).device == "cpu"


@needs_no_gpu
def test_auto_falls_back_to_the_cpu():
    plan = eplb_np.make_plan(LOAD, **SIZES, policy="hybrid", device="auto")
    assert plan.device == "cpu"
    assert plan == eplb_np.make_plan(LOAD, **SIZES, policy="hybrid")


def test_auto_falls_back_when_the_gpu_fails(monkeypatch):
    def fail():
        raise cuda.DeviceError("the GPU failed or was lost")

    monkeypatch.setattr("eplb_np.stages.gpu_planner.require_device", fail)
    assert eplb_np.make_plan(LOAD, **SIZES, policy="hybrid", device="auto").device == "cpu"
    with pytest.raises(cuda.DeviceError, match="was lost"):
        eplb_np.make_plan(LOAD, **SIZES, policy="hybrid", device="cuda")


def test_a_plan_keeps_its_device_but_is_no_other_plan_for_it(tmp_path):
    plan = eplb_np.make_plan(LOAD, **SIZES)
    elsewhere = eplb_np.Plan(plan.phy2log, plan.phyrank, plan.topology, plan.policy, device="cuda")
    assert elsewhere == plan
    assert pickle.loads(pickle.dumps(elsewhere)).device == "cuda"
    elsewhere.save(tmp_path / "plan.npz")
    assert eplb_np.Plan.load(tmp_path / "plan.npz").device == "cpu"


def test_what_only_the_cpu_plans_is_refused():
    with refused("policy='refined' plans on the CPU only", "device='cpu' or 'auto'"):
        eplb_np.make_plan(LOAD, **SIZES, policy="refined", device="cuda")
    plan = eplb_np.make_plan(LOAD, **SIZES)
    with refused("with a current plan plans on the CPU only"):
        eplb_np.make_plan(LOAD, current=plan, policy="refined", device="cuda")
    assert eplb_np.make_plan(LOAD, **SIZES, policy="refined", device="auto").device == "cpu"
    with refused("device='gpu' is unknown", "'cpu', 'cuda', 'auto'"):
        eplb_np.make_plan(LOAD, **SIZES, device="gpu")
    with refused("policy='best' is unknown"):
        eplb_np.make_plan(LOAD, **SIZES, policy="best", device="cuda")


class CudaAPIError(Exception):
    """As Numba's: the driver's number, and what it says."""

    def __str__(self):
        return "[{}] {}".format(*self.args)


class CUDAError(Exception):
    pass


class CudaSupportError(Exception):
    pass


class NvvmSupportError(Exception):
    pass


class LinkerError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (CudaAPIError(2, "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), "no memory"),
        (CudaAPIError(222, "Call to cuLinkAddData results in ..."), "too old"),
        (CudaAPIError(700, "Call to cuEventSynchronize results in ..."), "was lost"),
        (CudaAPIError(719, "Call to cuMemcpyDtoH results in UNKNOWN"), "restart the process"),
        (CudaSupportError("Error at driver init: \nCall to cuInit (100)"), "no GPU"),
        (CudaSupportError("Error at driver init: \nCall to cuInit (803):"), "too old"),
        (CudaSupportError("Error at driver init: \n\nNo library.\nSet this"), "(No library)"),
        (NvvmSupportError("libNVVM cannot be found.\nDo that"), "pip install 'eplb-np[cuda13]'"),
        (CUDAError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the PTX was"), "too old"),
        (CUDAError("CUDA_ERROR_LAUNCH_FAILED: It failed. Causes are many"), "It failed): restart"),
        (LinkerError("[222] Call to cuLinkAddData results in CUDA_ERROR_UNS..."), "too old"),
        (LinkerError("error in the code"), "cannot compile here"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(error, part):
    with pytest.raises(cuda.DeviceError) as caught, _device.device_errors():
        raise error
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_other_errors_pass():
    with pytest.raises(KeyError), _device.device_errors():
        raise KeyError("weight")


def test_numba_cuda_with_a_numpy_that_it_does_not_know(monkeypatch):
    _device.numba_cuda.cache_clear()
    monkeypatch.setattr(np, "row_stack", None, raising=False)
    monkeypatch.delattr(np, "row_stack")
    monkeypatch.setattr("numba.cuda.implementation", "NVIDIA", raising=False)
    try:
        with pytest.raises(cuda.DeviceError, match=r"pip install 'numpy<2\.5'"):
            _device.numba_cuda()
        assert not cuda.is_available()
    finally:
        _device.numba_cuda.cache_clear()


def test_no_numba_cuda_at_all(monkeypatch):
    _device.numba_cuda.cache_clear()
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    monkeypatch.delattr("numba.cuda", raising=False)
    try:
        with pytest.raises(cuda.DeviceError, match=r"cannot be imported.*pip install"):
            _device.numba_cuda()
    finally:
        _device.numba_cuda.cache_clear()


def test_importing_the_gpu_part_loads_no_numba():
    code = "import eplb_np.cuda, sys; print([m for m in sys.modules if m.startswith('numba')])"
    assert output_of(code) == "[]"


def test_streams():
    assert _device.as_stream(None) == _device.as_stream(0) == 0
    with refused("is not a stream", "PyTorch"):
        _device.as_stream("main")
    assert _device.as_stream(SimpleNamespace(ptr=0)) == 0
    assert _device.as_stream(SimpleNamespace(cuda_stream=0)) == 0
    assert _device.as_stream(SimpleNamespace(__cuda_stream__=lambda: (0, 0))) == 0


class OnAGpu:
    """DLPack as a GPU library would offer it, but for where the memory is."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream):
        self.stream = stream
        return self.array.__dlpack__()


def test_dlpack():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, 1:]
    references = sys.getrefcount(array)
    given = OnAGpu(array)
    imported = import_array(given, 0, "weight")
    interface = imported.__cuda_array_interface__
    assert given.stream == 1  # the default stream's name in DLPack
    assert interface["shape"] == array.shape
    assert interface["strides"] == array.strides
    assert np.dtype(interface["typestr"]) == np.float32
    first = ctypes.cast(interface["data"][0], ctypes.POINTER(ctypes.c_float))[0]
    assert first == array[0, 0]
    assert sys.getrefcount(array) > references
    del imported, given
    assert sys.getrefcount(array) == references


def test_dlpack_of_the_host_and_of_other_types():
    assert import_array(LOAD, 0, "weight") is None
    with refused("weight has the DLPack type", "give float32"):
        ImportedArray(np.ones(3, complex).__dlpack__(), "weight")


def test_loads_on_the_host_stay_as_they_are():
    for load in (LOAD, LOAD.tolist(), OnTheHost()):
        assert as_host_load(load) is load


def test_loads_on_a_gpu_are_not_taken_for_objects():
    with refused("load is on a GPU", "copy it to the host"):
        eplb_np.make_plan(SimpleNamespace(__cuda_array_interface__={}), **SIZES)


class OnTheHost:
    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self):
        raise AssertionError


@pytest.mark.skipif(find_spec("numba") is None, reason="Numba is not installed")
def test_blocks_are_as_large_as_their_work(monkeypatch):
    monkeypatch.setattr(_launch, "simulated", lambda: False)
    sizes = [_launch.choose_threads(n) for n in (1, 2, 64, 65, 72, 288, 4096)]
    assert sizes == [32, 32, 64, 128, 128, 256, 512]
    monkeypatch.setattr(_launch, "block_threads", 128)
    assert _launch.choose_threads(1) == 128


def test_real_layers_fit_into_shared_memory():
    for sizes in ((256, 64, 72, 72, 64), (256, 256, 288, 288, 256), (384, 384, 448, 448, 256)):
        num_bytes, room = scratch_bytes(*sizes)
        assert num_bytes <= _launch.SHARED_BYTES
        assert num_bytes % 8 == 0
        assert room >= sizes[3]
    assert scratch_bytes(4096, 4096, 6144, 6144, 512)[0] > _launch.SHARED_BYTES
