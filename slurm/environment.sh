#!/usr/bin/env bash
# slurm/environment.sh FILE.tar: packs .venv, or else the environment in use, with its Python, into one file. A job with
# DDHPC_ENVIRONMENT=FILE.tar in slurm/site.env unpacks it on the disk of each node, and its ranks import from there.

# shellcheck source=/dev/null
[ ! -e slurm/site.env ] || . slurm/site.env
[ ! -x .venv/bin/python ] || PATH=$PWD/.venv/bin:$PATH
set -euo pipefail

if [ $# != 1 ] || [[ $1 != *.tar ]]; then
  echo "expected slurm/environment.sh FILE.tar" >&2
  exit 2
fi
# -I: what the environment holds, not what lies in this directory
python -I - "$1" <<'PYTHON'
import importlib.util
import os
import sys
import sysconfig
import tarfile
from pathlib import Path

target = Path(sys.argv[1])


def refuse(why):
    print(why, file=sys.stderr)
    sys.exit(2)


version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
site, stdlib = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))
if sys.prefix == sys.base_prefix:
    refuse(f"{sys.executable} is in no virtual environment; expected one, made by python -m venv")
if "include-system-site-packages = true" in Path(sys.prefix, "pyvenv.cfg").read_text():
    refuse(f"{sys.prefix} also uses the packages of {sys.base_prefix}; expected one that does not")
editable = [path.name for path in site.glob("__editable__*") if "ddhpc" not in path.name]
if editable:
    refuse(f"{site / editable[0]}: installed as editable; expected a plain pip install of all but ddhpc")
found = importlib.util.find_spec("ddhpc")
if found is None:
    refuse(f"{sys.prefix} has no ddhpc; expected it installed")
package = Path(found.origin).parent


def wanted(member):
    """Without what lies elsewhere in the tar, or is for the one place where ddhpc is edited."""
    name = Path(member.name)
    left_out = name.parent.name == version and name.name in ("site-packages", "dist-packages", "test")
    if name.parts[0] == "base" and left_out:
        return None
    return None if name.name.startswith("__editable__") else member


part = target.with_name(f"{target.name}.part")
with tarfile.open(part, "w") as tar:
    tar.add(os.path.realpath(sys._base_executable), f"base/bin/{version}")
    tar.add(stdlib, f"base/{stdlib.relative_to(sys.base_prefix)}", filter=wanted)
    tar.add(site, f"venv/lib/{version}/site-packages", filter=wanted)
    if site not in package.parents:
        tar.add(package, f"venv/lib/{version}/site-packages/ddhpc", filter=wanted)
    link = tarfile.TarInfo("venv/bin/python")
    link.type, link.linkname = tarfile.SYMTYPE, f"../../base/bin/{version}"
    tar.addfile(link)
os.replace(part, target)
print(f"{target}: {target.stat().st_size >> 20} MiB of {sys.prefix}, with ddhpc of {package}")
PYTHON
