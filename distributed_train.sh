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
# A signal (TERM, INT, HUP, USR1) is passed on: the processes finish their step, save their state and end with 128 plus the
# signal. A second one ends them at once.
#
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
    [ "${NNODES:-1}" = 1 ] || echo "Waiting 5 minutes for $NNODES machines at ${MASTER_ADDR:-127.0.0.1}:${MASTER_PORT:-29500}" >&2
    meeting="--rdzv-conf=timeout=300 --nnodes=${NNODES:-1} --node-rank=${NODE_RANK:-0} --master-addr=${MASTER_ADDR:-127.0.0.1} --master-port=${MASTER_PORT:-29500}"
fi

# torchrun waits this long for a step to end and be saved, and then kills the processes.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}"

# torchrun prints a traceback when a process fails. Silence it, because the process has already printed what is wrong.
# It would handle a signal that nohup has made this script ignore, and die of SIGUSR1.
# shellcheck disable=SC2086
exec "$PYTHON" -c '
import logging, signal, sys

handled = [name for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
           if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]

try:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
except ImportError as error:
    print(f"distributed_train.sh: error: {sys.executable} cannot use torch ({error}): make an environment with make env, "
          "or name another interpreter in PYTHON", file=sys.stderr)
    sys.exit(2)

logging.disable(logging.ERROR)
try:
    args = run.parse_args(sys.argv[1:])
    args.signals_to_handle = ",".join(handled)
    run.run(args)
except ChildFailedError as error:
    rank, failure = error.get_first_failure()
    code = failure.exitcode
    if any(other.exitcode == 2 for other in error.failures.values()):
        code = 2  # a process has said in a sentence what is wrong, such as the death of another one
    elif code < 0:
        name = signal.Signals(-code).name
        print(f"distributed_train.sh: error: rank {rank} was killed by {name}, as the system does when memory is short",
              file=sys.stderr)
    sys.exit(128 - code if code < 0 else code or 1)
except KeyboardInterrupt:
    sys.exit(130)
except SignalException as error:  # a signal, such as Ctrl-C; torchrun has already stopped the processes
    sys.exit(128 + error.sigval)
except Exception as error:  # torchrun itself, such as machines that do not meet
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    print(f"distributed_train.sh: error: the processes did not start ({reason}): see that all machines run this script "
          "with the same NNODES, MASTER_ADDR and MASTER_PORT, each with its own NODE_RANK", file=sys.stderr)
    sys.exit(1)
' $meeting --nproc-per-node="$processes" $TORCHRUN_ARGS "$here/train.py" "$@"
