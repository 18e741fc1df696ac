"""Creation of a home.

    HOME/collector.toml     every setting, commented out, with its meaning
    HOME/supervisord.conf   the process tree
    HOME/.env.example       the secrets' names
    HOME/data run log       empty; supervisord does not start without log/ and run/

Guarantees:
    * Nothing that exists is changed; repeating it changes nothing.
    * A directory that no home can be in is refused before anything is made.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from conf.home import reject_unusable_path


def create_home(root: Path) -> list[tuple[Path, bool]]:
    """Make the files of a home that are missing; each path, and whether it was made now. SettingsError."""
    reject_unusable_path(root.resolve())
    conf = resources.files("conf")
    files = {
        root / "collector.toml": comment_out_settings(conf.joinpath("default.toml").read_text(encoding="utf-8")),
        root / "supervisord.conf": conf.joinpath("supervisord.conf").read_text(encoding="utf-8"),
        root / ".env.example": conf.joinpath("example.env").read_text(encoding="utf-8"),
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, mode in (("data", 0o755), ("run", 0o700), ("log", 0o700)):
        (root / name).mkdir(mode=mode, exist_ok=True)
    results = []
    for path, text in files.items():
        missing = not path.exists()
        if missing:
            path.write_text(text, encoding="utf-8")
        results.append((path, missing))
    return results


def comment_out_settings(manual: str) -> str:
    """The default settings with every setting commented out, tables kept: what is not changed stays the default."""
    lines = [
        "# This home's settings. A line takes effect when its first # is removed; the values shown are the defaults.",
        *(f"#{line}" if line and not line.startswith(("#", "[")) else line for line in manual.splitlines()[1:]),
    ]
    return "\n".join(lines) + "\n"
