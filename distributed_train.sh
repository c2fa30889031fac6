#!/bin/sh
# Trains on N processes of this machine:
#
#     ./distributed_train.sh N DATA [flags of train.py ...]
#
# one GPU each, or on the CPU with --device cpu (where there is no GPU, that is the default).
#
# On several machines run it on each, with N processes there, and say in the environment how they meet:
#
#     NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 ./distributed_train.sh 8 DATA ...   # first machine
#     NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 ./distributed_train.sh 8 DATA ...   # second machine
#
# TORCHRUN_ARGS holds further options of torchrun, such as "--rdzv-backend=c10d --rdzv-endpoint=host:29400 --max-restarts=3".
# PYTHON names the interpreter; without it .venv's is taken where there is one, else python3.

if [ $# -lt 1 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then
    echo "usage: ./distributed_train.sh N DATA [flags of train.py ...], where N is the number of processes" >&2
    exit 2
fi
processes=$1
shift

here=$(cd "$(dirname "$0")" && pwd)
if [ -z "$PYTHON" ]; then
    PYTHON=python3
    [ -x "$here/.venv/bin/python" ] && PYTHON=$here/.venv/bin/python
fi

# One process needs no launcher: it starts sooner, and an error is its own.
if [ "$processes" -eq 1 ] && [ "${NNODES:-1}" = 1 ] && [ -z "$TORCHRUN_ARGS" ]; then
    exec "$PYTHON" "$here/train.py" "$@"
fi

if [ "${NNODES:-1}" = 1 ] && [ -z "$TORCHRUN_ARGS" ]; then
    meeting="--standalone"
else
    meeting="--nnodes=${NNODES:-1} --node-rank=${NODE_RANK:-0} --master-addr=${MASTER_ADDR:-127.0.0.1} --master-port=${MASTER_PORT:-29500}"
fi

# torchrun tells the failure of a process with a traceback of its own, though the process has said what is wrong.
# shellcheck disable=SC2086
exec "$PYTHON" -c '
import logging, sys
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

logging.disable(logging.ERROR)
try:
    run.run(run.parse_args(sys.argv[1:]))
except ChildFailedError as error:
    sys.exit(abs(error.get_first_failure()[1].exitcode) or 1)
except KeyboardInterrupt:
    sys.exit(130)
except SignalException as error:  # as after Ctrl-C; the processes have been told, and have ended
    sys.exit(128 + error.sigval)
' $meeting --nproc-per-node="$processes" $TORCHRUN_ARGS "$here/train.py" "$@"
