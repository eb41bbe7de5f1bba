#!/bin/sh
# Runs everything that this bundle was made for, on a machine without network, and leaves small files to take home.
#
#     sh run.sh RESULTS [--minutes N] [other options of `robustmri run-bundle`]
#
# RESULTS is a folder to make. PYTHON names the interpreter that has torch, if it is not python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ]; then
    echo "usage: sh run.sh RESULTS [--minutes N] [--only STAGE,STAGE] [--grace N]" >&2
    exit 2
fi
results=$1
shift
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
"$python" "$here/install.py"
export PYTHONPATH="$here/site${PYTHONPATH:+:$PYTHONPATH}" ROBUSTMRI_CACHE="$here"
exec "$python" -m robustmri.app.cli run-bundle "$here" --out "$results" "$@"
