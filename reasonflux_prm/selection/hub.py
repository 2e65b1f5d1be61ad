"""A finished output to the hub, by huggingface_hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from reasonflux_prm.errors import OutputError, UsageError

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
CARD: Final = "README.md"


def check_name(repository: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        UsageError: It is not ORG/NAME.
    """
    if _NAME.fullmatch(repository) is None:
        raise UsageError(f"expected --push ORG/NAME, got {repository!r}")


def push(repository: str, files: dict[str, Path], *, private: bool = False) -> str:
    """Upload files to a data set of the hub, in one commit; the repository is made if it is not there.

    Args:
        repository: ORG/NAME. The token is the one that `hf auth login` or HF_TOKEN left.
        files: Path in the repository -> file here.
        private: Of a repository that is made.

    Returns:
        The data set's address.

    Raises:
        OutputError: The hub refused, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_name(repository)
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.create_commit(
            repository,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)) for name, file in files.items()],
            commit_message="Upload from reasonflux-prm select",
            repo_type="dataset",
        )
    except Exception as error:  # the hub's client raises OSErrors, ValueErrors and its HTTP library's own kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        here = ", ".join(str(file) for file in files.values())
        raise OutputError(
            f"{repository} could not be written ({lines[0]}); what would have been uploaded is here: {here}"
        ) from error
    return str(address)
