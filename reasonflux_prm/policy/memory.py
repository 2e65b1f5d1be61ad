"""Memory that runs out: telling so from an error, and having it back."""

from __future__ import annotations

import gc


def out_of_memory(error: Exception) -> bool:
    """Whether an error says so."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def free_memory() -> None:
    """Give back what nothing holds any more; call it where no traceback holds the tensors."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
