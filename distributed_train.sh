#!/bin/sh
# Train in N processes on this machine:
#
#     ./distributed_train.sh N DATA [flags of train.py ...]
#
# Each process uses one GPU. With --device cpu, or without a GPU, all processes use the CPU.
#
# On several machines, run this script on each, with that machine's N. Environment variables name the first machine:
#
#     NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 ./distributed_train.sh 8 DATA ...   # first machine
#     NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 ./distributed_train.sh 8 DATA ...   # second machine
#
# TORCHRUN_ARGS holds more options of torchrun, such as "--rdzv-backend=c10d --rdzv-endpoint=host:29400 --max-restarts=3".
# PYTHON names the interpreter (default: .venv/bin/python if it exists, else python3).

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

# One process needs no launcher. Without one it starts sooner, and its exit status and errors are unchanged.
if [ "$processes" -eq 1 ] && [ "${NNODES:-1}" = 1 ] && [ -z "$TORCHRUN_ARGS" ]; then
    exec "$PYTHON" "$here/train.py" "$@"
fi

if [ "${NNODES:-1}" = 1 ] && [ -z "$TORCHRUN_ARGS" ]; then
    meeting="--standalone"
else
    meeting="--nnodes=${NNODES:-1} --node-rank=${NODE_RANK:-0} --master-addr=${MASTER_ADDR:-127.0.0.1} --master-port=${MASTER_PORT:-29500}"
fi

# torchrun prints a traceback when a process fails. Silence it, because the process has already printed what is wrong.
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
except SignalException as error:  # a signal, such as Ctrl-C; torchrun has already stopped the processes
    sys.exit(128 + error.sigval)
' $meeting --nproc-per-node="$processes" $TORCHRUN_ARGS "$here/train.py" "$@"
