#!/usr/bin/env bash
# `python -m benchmarks gpu-...` on a machine with an NVIDIA GPU and no package registry:
# Python 3.12 with its own JAX, flax, optax, chex and orbax; all else comes as wheels.
#
#   benchmarks/gpu.sh gpu-warp-8192   # any arguments of `python -m benchmarks`
#   benchmarks/gpu.sh --collect       # only keep the parts that have come along so far
#
# .whl/  one wheel of each package that the machine lacks
# .warp/ the wheel of NVIDIA Warp in parts (*.whl.part00, ...), too large to travel at
#        once: they may come one call at a time, and are kept in $KEEP
# Not run on a GPU yet; rehearsed without one.
set -euo pipefail
cd "$(dirname "$0")/.."
KEEP=${KEEP:-/tmp/purejaxppo-gpu}
mkdir -p "$KEEP/parts" "$KEEP/site"
if compgen -G ".warp/*.part*" > /dev/null; then cp .warp/*.part* "$KEEP/parts/"; fi
if [[ ${1:-} == --collect ]]; then exec ls -l "$KEEP/parts"; fi

install() { # into a folder of their own: the machine's JAX stays as it is
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$KEEP/site" "$@"
}
if [[ ! -e $KEEP/installed ]]; then install .whl/*.whl && touch "$KEEP/installed"; fi
if [[ ! -d $KEEP/site/warp ]] && compgen -G "$KEEP/parts/*.part00" > /dev/null; then
  first=$(basename "$KEEP"/parts/*.part00)
  cat "$KEEP"/parts/"${first%00}"* > "$KEEP/${first%.part00}"
  # A part that is missing makes a broken archive: MJX is measured all the same.
  install "$KEEP/${first%.part00}" || echo "warp: its wheel is not whole, so it is not measured" >&2
fi
export PYTHONPATH=$KEEP/site${PYTHONPATH:+:$PYTHONPATH}
python3 -c 'import jax; print(jax.__version__, jax.devices())'
exec python3 -u -m benchmarks "$@"
