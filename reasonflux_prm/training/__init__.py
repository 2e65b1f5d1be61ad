"""Labels into a PRM.

```python
from reasonflux_prm.training import TrainConfig, train

result = train(TrainConfig(data=("labels.jsonl",), output="prm"))
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasonflux_prm.training.config import TrainConfig

if TYPE_CHECKING:
    from reasonflux_prm.training.progress import Hook
    from reasonflux_prm.training.run import Trained

__all__ = ["TrainConfig", "train"]


def train(config: TrainConfig, hook: Hook | None = None) -> Trained:
    """Train a PRM into a folder; see `training.run.train`."""
    from reasonflux_prm.training import run  # torch and transformers take seconds to import

    return run.train(config, hook)
