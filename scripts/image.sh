# What images of the guest are made with: Debian packages without what nobody there reads, and an erofs of them. The
# scripts that make them source this, after lib.sh.

# The time every file carries. Any would do, but zipfile refuses what is older than 1980.
timestamp=1700000000
uuid=a8f4f1ce-6f0b-4d0c-9d5c-3f1b1f7f5b11

# Left out of every package: what only people, packaging tools or other programs read.
unwanted=(
    usr/share/{applications,base-files,binfmts,bug,dict,doc,doc-base,info,initramfs-tools,lintian,locale,man,menu}
    usr/share/{common-licenses,debianutils,libc-bin,pixmaps,python3}
    usr/lib/{binfmt.d,valgrind} etc/{dpkg,skel,update-motd.d}
    # Debian's tools for compiling packaged modules; they need dpkg.
    usr/bin/py3{clean,compile,versions}
    # iconv's tables: Python brings its own codecs, and C.UTF-8 is built into the C library.
    'usr/lib/*/gconv' usr/bin/iconv usr/sbin/iconvconfig usr/bin/localedef
    # The C library's vector maths, which only programs built with -ffast-math use.
    {,usr/}'lib/*/libmvec.so.1'
    # Of openssl and ncurses only the configuration and the basic terminals are wanted.
    usr/bin/{openssl,c_rehash} usr/lib/ssl/misc
)

# unpack_lock LOCK: the packages of a lock, into the tree.
unpack_lock() {
    local name version sha256 arch file suite
    suite=$(suite_of "$1")
    while read -r name version sha256 arch; do
        file=$(fetch_deb "$name" "$version" "$sha256" "$arch" "$suite" </dev/null)
        case $name in
            base-files) unpack "$file" ./etc/os-release ./usr/lib/os-release ./etc/debian_version ./etc/host.conf ;;
            *) unpack "$file" ;;
        esac
    done < <(grep -v '^#' "$1")
}

# unpack FILE [MEMBER...]: a package's wanted files, into the tree.
unpack() {
    local file=$1
    shift
    dpkg-deb --fsys-tarfile "$file" |
        tar -x -C "$tree" --keep-directory-symlink --no-same-owner --same-permissions \
            --anchored --wildcards "${unwanted[@]/#/--exclude=./}" "$@"
}

# compile NAME ARG...: together with what all that waits shares.
compile() {
    local waiting=$repo/guest/waiting
    gcc -O2 -ffile-prefix-map="$repo"=. -Wall -Wextra -Werror -Wno-unused-parameter -fvisibility=hidden -s \
        -I"$waiting" -o "$tree/usr/lib/sandbox/$1" "${@:2}" "$waiting"/*.c
}

# make_erofs FILE: of the tree.
make_erofs() {
    mkdir -p "$(dirname "$1")"
    # Without times of their own, extended attributes or big ids, files do with the smaller kind of inode.
    # A file whose end lies beside its inode cannot be mapped directly (DAX).
    mkfs.erofs --quiet -x-1 -T"$timestamp" --ignore-mtime -U"$uuid" --all-root -Eforce-inode-compact,noinline_data,nosbcrc \
        "$1" "$tree" >&2
}

# publish FROM TO FILE: another build of the same inputs may have been quicker, which is as good.
publish() {
    chmod 755 "$1"
    mv -T "$1" "$2" 2>/dev/null || [ -f "$2/$3" ] || fail "cannot move the image to $2"
    say "made $2/$3, $(stat -c %s "$2/$3") bytes"
}
