#!/bin/sh
# Build report/main.pdf from main.tex, numbers.tex and the figures, or say what is
# wrong with it. Installs the TeX packages where they are missing and it may.
set -eu
cd "$(dirname "$0")"
packages="texlive-latex-recommended texlive-fonts-recommended texlive-publishers"

say() {
    echo "report: $1" >&2
}

has_tex() {
    command -v pdflatex >/dev/null && kpsewhich IEEEtran.cls booktabs.sty ptmr8t.tfm >/dev/null
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if ! has_tex && command -v apt-get >/dev/null && as_root true 2>/dev/null; then
    say "installing $packages"
    as_root apt-get update -qq
    # shellcheck disable=SC2086  # a word each
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends $packages >/dev/null
fi
has_tex || {
    say "LaTeX with IEEEtran is missing: install $packages, then run this again"
    exit 2
}

out=../logs/report
mkdir -p $out
cd $out
export TEXINPUTS=../../report: BIBINPUTS=../../report:
latex() {
    pdflatex -interaction=nonstopmode -halt-on-error main.tex >latex.txt || {
        tail -n 20 latex.txt >&2
        exit 1
    }
}
latex
bibtex main >bibtex.txt || { cat bibtex.txt >&2; exit 1; }
latex
latex
latex

faults=$(grep -hE "^Overfull|undefined|multiply|Rerun to get|^Warning--|Missing char" \
    main.log main.blg || true)
pages=$(sed -n 's/^Output written on main.pdf (\([0-9]*\) page.*/\1/p' main.log)
[ "$pages" -le 8 ] || faults="$faults
it has $pages pages; expected at most 8"
[ -z "$faults" ] || { say "not good enough to keep: $faults"; exit 1; }
mv main.pdf ../../report/main.pdf
say "report/main.pdf, $pages pages"
