"""Keys and values of one sequence, kept so that a session pays for new tokens only.

Forks share their storage. The first branch that appends writes in place behind the shared prefix; a later one finds the
place taken and copies the prefix once (copy on write). Rolling back only moves the end.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from reasonflux_prm.prm.config import DecoderConfig

_FIRST_CAPACITY = 512


class _Storage:
    """Buffers a layer, (capacity, kv_heads, head_dim); the first `filled` tokens belong to at least one cache."""

    def __init__(
        self, config: DecoderConfig, devices: Sequence[torch.device], dtype: torch.dtype, capacity: int
    ) -> None:
        shape = (capacity, config.kv_heads, config.head_dim)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for device in devices]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for device in devices]
        self.capacity = capacity
        self.filled = 0
        self.users: weakref.WeakSet[KVCache] = weakref.WeakSet()


class KVCache:
    """The past of one sequence. `length` tokens are held; `extend` is called once a layer, then `commit` once."""

    def __init__(self, config: DecoderConfig, devices: Sequence[torch.device], dtype: torch.dtype) -> None:
        self.config, self.devices, self.dtype = config, tuple(devices), dtype
        self.length = 0
        self._storage = _Storage(config, self.devices, dtype, _FIRST_CAPACITY)
        self._storage.users.add(self)

    def fork(self) -> KVCache:
        """Return a cache with the same past; the two go separate ways from here."""
        twin = KVCache.__new__(KVCache)
        twin.config, twin.devices, twin.dtype = self.config, self.devices, self.dtype
        twin.length, twin._storage = self.length, self._storage
        self._storage.users.add(twin)
        return twin

    def rollback(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot roll a cache of {self.length} tokens back to {length}")
        self.length = length

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's `keys`, `values (t, kv_heads, head_dim)` behind the past; return views of past and new."""
        stop = self.length + len(keys)
        if layer == 0:
            self._make_room(stop)
        storage = self._storage
        storage.keys[layer][self.length : stop] = keys
        storage.values[layer][self.length : stop] = values
        return storage.keys[layer][:stop], storage.values[layer][:stop]

    def commit(self, added: int) -> None:
        """Count the tokens that every layer has written."""
        self.length += added

    def _make_room(self, stop: int) -> None:
        storage = self._storage
        taken = max((user.length for user in storage.users if user is not self), default=0)
        reserved = storage.filled if len(storage.users) > 1 else self.length
        if stop > storage.capacity or max(taken, reserved) > self.length:
            capacity = storage.capacity
            while capacity < stop:
                capacity *= 2
            storage.users.discard(self)
            fresh = _Storage(self.config, self.devices, self.dtype, capacity)
            for old, new in ((storage.keys, fresh.keys), (storage.values, fresh.values)):
                for source, target in zip(old, new, strict=True):
                    target[: self.length] = source[: self.length]
            self._storage = storage = fresh
            storage.users.add(self)
        storage.filled = stop
