#!/bin/sh
# reference.sh TREE OVER PROGRAM WORD...: runs a program of an image whose files are in TREE, with those of the directory OVER
# laid over its /usr, if that is not empty. It sees those, devices and processes of this machine, and the current directory
# as /work.
set -eu
as=
[ "$(id -u)" = 0 ] || as=--map-root-user
# Every program takes the place of the one before, so that a signal or an exit status is Python's.
# shellcheck disable=SC2016  # The inner shell expands these.
exec unshare --mount $as sh -euc '
    mount --bind -o ro "$0" "$0"
    [ -z "$1" ] || mount -t overlay -o "ro,lowerdir=$1:$0/usr" overlay "$0/usr"
    shift
    mount --rbind /dev "$0/dev"
    mount --rbind /proc "$0/proc"
    mount -t tmpfs -o mode=1777 shm "$0/dev/shm"
    mount -t tmpfs -o mode=1777 tmp "$0/tmp"
    mount --bind . "$0/work"
    unset PWD
    exec unshare --root="$0" --wd=/work "$@"
' "$@"
