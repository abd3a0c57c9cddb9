#!/bin/sh
# Make .venv with the first Python that is able to, or print what to type. PYTHON=... chooses another one.
# Run it from the root of the repository. It leaves a .venv that works as it is.
set -eu

tested='(3, 11) <= sys.version_info[:2] <= (3, 15)'
newer='sys.version_info[:2] >= (3, 11)'

holds() { # true if Python $1 exists and condition $2 is true there
    "$1" -c "import sys; sys.exit(not ($2))" >/dev/null 2>&1
}

can_make_venv() { # false for Debian's Python without the package that holds ensurepip
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

if [ -x .venv/bin/python ] && holds .venv/bin/python "$newer" && .venv/bin/python -m pip --version >/dev/null 2>&1
then
    exit 0
fi

candidates=${PYTHON:-python3 python3.15 python3.14 python3.13 python3.12 python3.11 python}
chosen=
unfit=
for condition in "$tested" "$newer"; do
    for candidate in $candidates; do
        holds "$candidate" "$condition" || continue
        if can_make_venv "$candidate"; then
            chosen=$candidate
            break 2
        fi
        unfit=${unfit:-$candidate}
    done
done

if [ -z "$chosen" ]; then
    sudo='sudo '
    [ "$(id -u)" -ne 0 ] || sudo=
    if [ -n "$unfit" ]; then
        version=$("$unfit" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "Python $version is here, but it cannot make a virtual environment." >&2
        echo "On Debian and Ubuntu type this, then run make again:" >&2
        echo "    ${sudo}apt-get install python$version-venv" >&2
    else
        echo "No Python 3.11 or later was found (looked for: $candidates)." >&2
        if [ "$(uname -s)" = Darwin ]; then
            echo "Install one from python.org, or type: brew install python@3.13" >&2
        else
            echo "On Debian and Ubuntu type: ${sudo}apt-get install python3 python3-venv" >&2
        fi
        echo "If it has another name, tell make: make demo PYTHON=/path/to/python" >&2
    fi
    exit 1
fi

# Leave nothing half-made behind, whatever ends this script early.
trap 'rm -rf .venv' EXIT
trap 'exit 130' INT TERM HUP
rm -rf .venv
echo "Making .venv with $("$chosen" --version) ($(command -v "$chosen"))"
"$chosen" -m venv .venv
echo "Upgrading its pip"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
trap - EXIT
