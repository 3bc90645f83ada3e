#!/bin/sh
# sh setup.sh VENV [LOCK]: make a virtual environment with everything, of the versions in
# the file LOCK where it is given, FluidSynth's library and the SoundFonts included
# where this user may install system packages.
# sh setup.sh --browser: install Chromium likewise, which tests of pages run in.
set -eu
venv=$1
versions=${2:+--constraint $2}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is older than 3.11; run make PYTHON=/path/to/python3.11" >&2
    exit 2
}

say() {
    echo "setup: $1" >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if [ "$venv" = --browser ]; then
    if ! chromium --version >/dev/null 2>&1 && command -v apt-get >/dev/null &&
        grep -q '^ID=debian' /etc/os-release && as_root true 2>/dev/null; then
        say "installing Chromium"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends chromium >/dev/null ||
            say "Chromium is missing: pages are not tested in a browser"
    fi
    exit 0
fi

have_fluidsynth() {
    "$python" -c 'import ctypes.util as u, sys; sys.exit(not u.find_library("fluidsynth"))'
}

sounds=/usr/share/sounds
if command -v apt-get >/dev/null; then
    if ! have_fluidsynth || [ ! -e $sounds/sf3/FluidR3Mono_GM.sf3 ] ||
        [ ! -e $sounds/sf2/sf_GMbank.sf2 ]; then
        if as_root true 2>/dev/null; then
            say "installing FluidSynth and two SoundFonts"
            as_root apt-get update -qq
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                --no-install-recommends libfluidsynth3 \
                fluidr3mono-gm-soundfont csound-soundfont >/dev/null
        fi
    fi
elif command -v brew >/dev/null && ! have_fluidsynth; then
    brew install fluid-synth
fi
have_fluidsynth || {
    say "FluidSynth's library is missing: install libfluidsynth3 (Debian, Ubuntu), fluid-synth (Homebrew) or fluidsynth (conda-forge), then run this again"
    exit 2
}

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --upgrade pip
# shellcheck disable=SC2086  # two words, or none
"$venv/bin/python" -m pip install --quiet --requirement requirements.txt $versions
"$venv/bin/python" -m pip install --quiet --no-deps --editable .
