#!/usr/bin/env bash
# The benchmarks with the peers that the package index has, in .venv-peers: an environment that sees .venv's packages, so
# that torch is neither installed twice nor changed.
#   bench_peers.sh [OPERATOR] [ARGUMENTS of `saccade bench`]; without an operator, all of them, into $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."

PEERS=(
  kornia==0.9.0 kornia_rs==0.2.0 lapx==0.11.1 mambapy==1.2.0 natten==0.21.7 opencv-python-headless==5.0.0.93 qpsolvers==4.13.0
  spikingjelly==2.0.0 snntorch==1.0.0 loguru==0.7.3
  qulacs==0.6.14 qiskit-aer==0.18.2 pennylane==0.45.1 pennylane-lightning==0.45.0 autograd==1.9.1 autoray==0.11.0 appdirs
  cachetools diastatic-malt tomlkit psutil python-dateutil six
)
OUT=${OUT:-build/peers}
PYTHON=.venv-peers/bin/python

if [[ ! -x .venv/bin/python ]]; then
  echo "make bench-peers stands on .venv: run make .venv first." >&2
  exit 2
fi

# The same packages again only where the list above changed.
if [[ "$(cat .venv-peers/peers.txt 2>/dev/null)" != "${PEERS[*]}" ]]; then
  echo "installing ${PEERS[*]} into .venv-peers ..."
  .venv/bin/python -m venv --clear .venv-peers
  echo '*' >.venv-peers/.gitignore
  site=$($PYTHON -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  base=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # addsitedir and not a bare path: it also reads the .pth file of the editable installation.
  echo "import site; site.addsitedir('$base')" >"$site/base.pth"
  # --no-deps: a peer may not bring another torch. --no-build-isolation: one that builds finds the torch that is there.
  pip=("$PYTHON" -m pip --disable-pip-version-check --no-input install -q)
  "${pip[@]}" setuptools wheel
  "${pip[@]}" --no-deps --no-build-isolation "${PEERS[@]}"
  echo "${PEERS[*]}" >.venv-peers/peers.txt
fi

if (($#)); then
  exec $PYTHON -m saccade bench "$@"
fi
mkdir -p "$OUT"
for operator in $($PYTHON -c 'import saccade.bench; print(*saccade.bench.OPERATORS)'); do
  $PYTHON -m saccade bench "$operator" --json "$OUT/$operator.json" --plot "$OUT/$operator.png"
done
