"""A device of its own in the memory of the CPU: tensors there refuse the company of others, as on a GPU.

What is computed is real; what a device costs, and kernels of its own, are not there.
"""

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operations whose indices may be on the CPU."""

VIEWS = ("select.int", "slice.Tensor", "transpose.int", "permute", "expand", "unsqueeze", "squeeze", "t", "view")
SETTLED = ("empty.memory_format", "empty_strided", "clone", "_local_scalar_dense", "_copy_from", "detach", "alias")
"""What has an implementation here, or does well with that of torch."""

SETUP = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
"""None where this release of torch has no devices in Python."""

copies = []
"""Devices and shape of every copy and read so far, (source, target, shape)."""

_held = {}
_libraries = []


def use():
    """Let this process have the device."""
    SETUP(NAME)
    own, others = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    _libraries.extend([own, others])
    own.impl(
        "empty.memory_format", lambda size, *, dtype=None, **_: _there(torch.empty(size, dtype=dtype)), "PrivateUse1"
    )
    own.impl(
        "empty_strided", lambda size, stride, *, dtype=None, **_: _there(torch.empty(size, dtype=dtype)), "PrivateUse1"
    )
    own.impl("clone", lambda tensor, **_: _there(_here(tensor).clone()), "PrivateUse1")
    own.impl("_local_scalar_dense", _read, "PrivateUse1")
    own.impl("_copy_from", _copy, "PrivateUse1")
    keys = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    names = {name for key in keys for name in torch._C._dispatch_get_registrations_for_dispatch_key(key)}
    names = {name.removeprefix("aten::") for name in names if name.startswith("aten::")}
    kept = ("_to_copy", "copy", "resize", "set_", "_foreach", "is_", "record_stream", "_pin", "pin_")
    for name in {*VIEWS, *names} - set(SETTLED):
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if operation is not None and not name.startswith(kept):
            own.impl(name, lambda *args, call=operation, **kwargs: _computed(call, *args, **kwargs), "PrivateUse1")
    others.fallback(_computed, "PrivateUse1")


def _there(tensor):
    """A tensor of the device, known by its storage: also views that torch makes share that."""
    if not isinstance(tensor, torch.Tensor) or tensor.device.type == NAME:
        return tensor
    made = torch._C._acc.create_empty_tensor(tensor.shape, tensor.dtype)
    storage = made.untyped_storage()
    _held[storage._cdata] = tensor, storage
    return made


def _here(tensor):
    is_there = isinstance(tensor, torch.Tensor) and tensor.device.type == NAME
    return _held[tensor.untyped_storage()._cdata][0] if is_there else tensor


def _read(tensor):
    copies.append((NAME, "cpu", tuple(tensor.shape)))
    return _here(tensor).item()


def _copy(source, target, non_blocking=False):
    copies.append((source.device.type, target.device.type, tuple(source.shape)))
    _here(target).copy_(_here(source))
    return target


def _computed(call, *args, **kwargs):
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    strangers = [one for one in given if one.device.type != NAME and one.dim()]
    if strangers and call.overloadpacket.__name__ not in INDEXING:
        raise RuntimeError(f"{call}: tensors on {NAME} and {strangers[0].device}")
    if kwargs.get("device") is not None:
        kwargs["device"] = "cpu"
    made = call(*tree_map(_here, args), **tree_map(_here, kwargs))
    changed = {id(_here(one)): one for one in given}
    return tree_map(lambda one: changed[id(one)] if id(one) in changed else _there(one), made)
