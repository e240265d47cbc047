"""Give the published dashboard its own copies of the scripts that its page loads from the web.

    python asv_benchmarks/tools/vendor_scripts.py

Run this after ``asv publish``, which rewrites the page. Without these copies the page is blank when
it is read offline, from a disk, or behind a firewall.

The scripts are fetched with ``npm pack``, in fixed versions, and checked against their digests.
They are not kept in the repository: 400 KB of other people's code that only the dashboard needs.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

HTML = Path(__file__).parents[1] / "html"
FOLDER = "vendor"


class Script(NamedTuple):
    """A file of a package."""

    package: str  # name@version
    path: str
    sha256: str


FLOT = "flot@0.8.3"
BOOTSTRAP = "bootstrap@3.1.1"
SCRIPTS = {  # by the name that asv's page loads
    "jquery-3.3.1.min.js": Script(
        "jquery@3.3.1",
        "dist/jquery.min.js",
        "160a426ff2894252cd7cebbdd6d6b7da8fcd319c65b70468f10b6690c45d02ef",
    ),
    "jquery.flot.min.js": Script(
        FLOT,
        "jquery.flot.js",
        "b7b931f273c38b1277b9c6c1f4e05c4ec09885a487bddaf3279e2d7e49a38e12",
    ),
    "jquery.flot.time.min.js": Script(
        FLOT,
        "jquery.flot.time.js",
        "a582c832adc7138a6b05aaf61f16ebac274701f1be4afea77e739a1c34b9c41a",
    ),
    "jquery.flot.selection.min.js": Script(
        FLOT,
        "jquery.flot.selection.js",
        "e6c85f6c1ebe4b4da29d8ae238c7c5060283f05f7ef054f6b91817d02c092918",
    ),
    "jquery.flot.categories.min.js": Script(
        FLOT,
        "jquery.flot.categories.js",
        "6e81664b28ea795c734906f4aa15614640a75ac7fbd399a7fb9084040698351a",
    ),
    "jquery.flot.orderBars.js": Script(
        "flot-orderbars@1.0.0",
        "js/jquery.flot.orderBars.js",
        "39735b4f46f96ff4e082572401f47c55a2767b366fd1d1e821e44a8d830a12bf",
    ),
    "stupidtable.min.js": Script(
        "stupid-table-plugin@1.1.3",
        "stupidtable.min.js",
        "4642380f28ebe9ed7cac251793b281ef8620c4386205d92788f9b12f5cceb4e0",
    ),
    "md5.min.js": Script(
        "blueimp-md5@2.19.0",
        "js/md5.min.js",
        "64d7ded388c562e4bde9e58ce205e5fa01b9734fcd434d496eb7b4fbfe9b927d",
    ),
    "bootstrap.min.js": Script(
        BOOTSTRAP,
        "dist/js/bootstrap.min.js",
        "898d05a17f2cfc5120ddcdba47a885c378c0b466f30f0700e502757e24b403a1",
    ),
    "bootstrap.min.css": Script(
        BOOTSTRAP,
        "dist/css/bootstrap.min.css",
        "e9503448692b738dd260fbd7f7cabf2e11f09b600fa97e6eb3a56eba5b1a7e9b",
    ),
}

# What loads: <script src="https://..." ...> and <link ... href="https://..." ...>.
LOADING_TAG = re.compile(r"<(?:script|link)\b[^>]*>")
ADDRESS = re.compile(r"""\b(src|href)="(?:https?:)?//[^"]*/([^"/]+)\"""")
ABOUT_THE_ADDRESS = re.compile(r'\s(integrity|crossorigin|referrerpolicy)="[^"]*"')


def main() -> None:
    """Fetch the scripts and make the page load them."""
    page = HTML / "index.html"
    if not page.exists():
        sys.exit(f"{page} does not exist: run `asv publish` first")
    text, names = with_own_copies(page.read_text())
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown:
        sys.exit(f"asv's page loads {', '.join(unknown)}: add them to SCRIPTS in {__file__}")
    fetch(names)
    page.write_text(text)
    print(f"{len(names)} scripts are in {HTML / FOLDER}")


def with_own_copies(page: str) -> tuple[str, list[str]]:
    """Return the page with every web address replaced, and the files it then needs."""
    names = []

    def replace(tag: re.Match[str]) -> str:
        address = ADDRESS.search(tag[0])
        if address is None:
            return tag[0]
        names.append(address[2])
        own = ADDRESS.sub(rf'\1="{FOLDER}/\2"', tag[0])
        return ABOUT_THE_ADDRESS.sub("", own)

    return LOADING_TAG.sub(replace, page), names


def fetch(names: list[str]) -> None:
    """Write scripts into the dashboard's folder, or exit with the reason."""
    (HTML / FOLDER).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        archives = {}
        for package in sorted({SCRIPTS[name].package for name in names}):
            archives[package] = download(package, Path(downloads))
        for name in names:
            script = SCRIPTS[name]
            with tarfile.open(archives[script.package]) as archive:
                content = archive.extractfile(f"package/{script.path}").read()
            if hashlib.sha256(content).hexdigest() != script.sha256:
                sys.exit(f"{script.path} of {script.package} has an unexpected digest: not used")
            (HTML / FOLDER / name).write_bytes(content)


def download(package: str, folder: Path) -> Path:
    """Fetch a package's archive with npm, which caches it."""
    command = ["npm", "pack", "--silent", "--prefer-offline", package]
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(
            "npm is not installed, so the dashboard's page still loads its scripts from the web"
        )
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm could not fetch {package}: {error.stderr.strip()}")
    return folder / done.stdout.split()[-1]


if __name__ == "__main__":
    main()
