# Clean trees to test in: minimal Debians, in which commands run as root. lib.sh comes first.

# make_place: sets work to a directory for trees, which goes when the script ends.
make_place() {
    [ -c /dev/kvm ] || fail "this host has no /dev/kvm"
    umask 022
    mkdir -p "$cache"
    # Beside the cache: it must be possible to have devices there, which /tmp often rules out.
    work=$(mktemp -d "$cache/$(basename "$0").XXXXXX")
    trap 'as_root rm -rf "$work"' EXIT
    as_root cp -a /dev/kvm "$work/kvm" && as_root unshare --mount true && : <"$work/kvm" ||
        fail "this needs the rights to make and use devices in $work and to mount: CAP_MKNOD, CAP_SYS_ADMIN"
}

# unpack_debian SUITE: to a tree of that name.
unpack_debian() {
    local archive
    archive=$(debian_path "$1")
    mkdir "$work/$1"
    as_root tar --zstd -x -p --numeric-owner -f "$archive" -C "$work/$1"
}

# in_tree TREE COMMAND...: as root, with /proc, and with nothing of this process's environment.
in_tree() {
    # shellcheck disable=SC2016  # These are the inner shell's.
    as_root env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' sh "$@"
}

# make_debians SUITE...: those that are not in the cache, at once, since each waits for disk and network most of the time.
make_debians() {
    local suite file making=() status=0 pid
    for suite in "$@"; do
        file=$(debian_path "$suite")
        [ ! -f "$file" ] || continue
        install_packages debootstrap debian-archive-keyring zstd
        say "installing $suite in a tree"
        make_debian "$suite" "$file" &
        making+=($!)
    done
    for pid in "${making[@]}"; do
        wait "$pid" || status=1
    done
    return $status
}

# debian_path SUITE: a file in the cache, an archive of a minimal Debian.
debian_path() {
    printf '%s/debian-%s-%s.tar.zst\n' "$cache" "$1" "$(hash_of <(declare -f make_debian))"
}

# make_debian SUITE FILE
make_debian() {
    local tree=$work/making-$1 keyring mirror
    read -r mirror _ < <(archive_addresses)
    keyring=$(archive_keys)
    use_proxies_of_apt
    as_root debootstrap --variant=minbase --keyring="$keyring" "$1" "$tree" "$mirror" >"$work/$1.log" 2>&1 ||
        fail "debootstrap of $1: $(tail -n 5 "$work/$1.log")"
    as_root tar -c -C "$tree" --numeric-owner --exclude='./var/cache/apt/archives/*.deb' . | zstd -q -1 >"$2.$$"
    mv "$2.$$" "$2"
    as_root rm -rf "$tree"
}

# debootstrap fetches by itself.
use_proxies_of_apt() {
    local http_proxy_of_apt='' https_proxy_of_apt=''
    eval "$(apt-config shell http_proxy_of_apt Acquire::http::Proxy https_proxy_of_apt Acquire::https::Proxy)"
    export http_proxy=${http_proxy_of_apt:-${http_proxy:-}} https_proxy=${https_proxy_of_apt:-${https_proxy:-}}
}
