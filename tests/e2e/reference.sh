#!/bin/sh
# reference.sh TREE WORD...: runs the python3 of an image whose files are in TREE. It sees those, devices and processes of
# this machine, and the current directory as /work.
set -eu
as=
[ "$(id -u)" = 0 ] || as=--map-root-user
# Every program takes the place of the one before, so that a signal or an exit status is Python's.
# shellcheck disable=SC2016  # The inner shell expands these.
exec unshare --mount $as sh -euc '
    mount --bind -o ro "$0" "$0"
    mount --rbind /dev "$0/dev"
    mount --rbind /proc "$0/proc"
    mount -t tmpfs -o mode=1777 shm "$0/dev/shm"
    mount -t tmpfs -o mode=1777 tmp "$0/tmp"
    mount --bind . "$0/work"
    unset PWD
    exec unshare --root="$0" --wd=/work /usr/bin/python3 "$@"
' "$@"
