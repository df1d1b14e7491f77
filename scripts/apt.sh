# Debian packages of any suite, as the locks pin them. lib.sh sources this.
#
# They come through an apt root of the build's own in the cache, one for each suite: its sources, lists, state and keys
# are not the machine's, so that it does not matter which Debian the machine runs, nor who builds. Only how the archive
# is reached is the machine's affair: the address, unless SANDBOX_DEBIAN_MIRROR has it, and proxies and the like.

# The suite of a lock that names none.
default_suite=bookworm
# Names of suites, which tell Debian's archive from the others that a machine's apt reads.
debian_suites='buster|bullseye|bookworm|trixie|forky|duke|sid|(old|oldold)?stable|testing|unstable'
# For how long package lists are not read again.
fresh_minutes=10

# fetch_deb NAME VERSION SHA256 ARCH [SUITE]: prints the path of the verified package file.
fetch_deb() {
    local suite=${5:-$default_suite} name version sha256 arch file
    read -r name version sha256 arch < <(taken_for "$suite" "${@:1:4}")
    file=$(deb_path "$name" "$version" "$arch")
    verified "$file" "$sha256" || download "$file" "$suite" "$name" "$version" "$sha256" "$arch"
    printf '%s\n' "$file"
}

# download FILE SUITE NAME VERSION SHA256 ARCH: only a file with the pinned hash gets its name.
download() {
    local file=$1 suite=$2 name=$3 version=$4 sha256=$5 arch=$6 work
    refresh_lists "$suite"
    mkdir -p "$(dirname "$file")"
    work=$(mktemp -d "$(dirname "$file")/fetch.XXXXXX")
    # From a mirror in the file system, apt makes a link; cat takes what it leads to.
    (cd "$work" && apt_in "$suite" apt-get download -qq "$name:$arch=$version" >&2 && cat ./*.deb >deb) ||
        { rm -rf "$work"; fail "cannot fetch $name $version of $suite; apt's reason is above. scripts/pin renews the pins"; }
    verified "$work/deb" "$sha256" || {
        rm -rf "$work"
        fail "$name $version of $suite does not have the pinned sha256 $sha256: the pin or the package has been changed"
    }
    mv "$work/deb" "$file"
    rm -rf "$work"
}

verified() {
    [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]
}

# deb_path NAME VERSION ARCH: a package's file in the cache.
deb_path() {
    printf '%s/debs/%s_%s_%s.deb\n' "$cache" "$1" "${2//:/%3a}" "$3"
}

# --- Pins that the archive has no longer. What is taken instead is noted, and holds until scripts/pin renews the pins.

# suite_of LOCK: from its line "# suite NAME".
suite_of() {
    local suite
    suite=$(sed -n 's/^# suite //p' "$1")
    printf '%s\n' "${suite:-$default_suite}"
}

# taken LOCK: prints the lock, with what is taken instead of pins that are gone.
taken() {
    local suite line pin
    suite=$(suite_of "$1")
    while IFS= read -r line; do
        read -ra pin <<<"$line"
        case $line in
            '#'*) printf '%s\n' "$line" ;;
            *) taken_for "$suite" "${pin[@]}" ;;
        esac
    done <"$1"
}

# taken_for SUITE NAME VERSION SHA256 ARCH: prints the pin, or what is taken instead.
taken_for() {
    local note
    note=$(note_path "$1" "$2" "$3" "$5")
    if [ -f "$note" ] && [ ! -f "$(deb_path "$2" "$3" "$5")" ]; then
        cat "$note"
    else
        printf '%s\n' "${*:2}"
    fi
}

# settle LOCK: finds out which pins are gone, decides what is taken instead, and says so, each time. It asks the archive
# only about packages that are not in the cache. If the archive does not answer, the complaint is left to fetch_deb: what
# is made of the packages may be there already.
settle() {
    local suite pin
    suite=$(suite_of "$1")
    while read -ra pin; do
        settle_pin "$suite" "${pin[@]}" </dev/null
    done < <(grep -v '^#' "$1")
}

# settle_pin SUITE NAME VERSION SHA256 ARCH
settle_pin() {
    local suite=$1 name=$2 version=$3 arch=$5 note
    [ ! -f "$(deb_path "$name" "$version" "$arch")" ] || return 0
    note=$(note_path "$suite" "$name" "$version" "$arch")
    if ! noted_is_cached "$note"; then
        (refresh_lists "$suite") 2>/dev/null || return 0
        note_if_gone "$suite" "$name" "$version" "$note"
    fi
    [ ! -f "$note" ] || say_gone "$suite" "$name" "$version" "$note"
}

note_path() {
    printf '%s/gone/%s_%s_%s\n' "$(apt_root "$1")" "$2" "${3//:/%3a}" "$4"
}

noted_is_cached() {
    local name version arch
    [ -f "$1" ] || return 1
    read -r name version _ arch <"$1"
    [ -f "$(deb_path "$name" "$version" "$arch")" ]
}

# note_if_gone SUITE NAME VERSION NOTE: by the lists, whose signature apt has checked.
note_if_gone() {
    local suite=$1 name=$2 version=$3 note=$4 current
    rm -f "$note"
    [ -z "$(describe "$suite" "$name=$version")" ] || return 0
    current=$(describe "$suite" "$(successor "$suite" "$name")" | head -n 1)
    # A package without a successor is an error, but fetch_deb's.
    [ -n "$current" ] || return 0
    printf '%s\n' "$current" >"$note.$$"
    mv "$note.$$" "$note"
}

# successor SUITE NAME: the package that has taken another's place. A kernel's name holds a number that grows.
successor() {
    case $2 in
        linux-image-*)
            apt_in "$1" apt-cache pkgnames linux-image- |
                { grep -xE "$(sed -E 's/\./\\./g; s/-[0-9]+-/-[0-9]+-/' <<<"$2")" || true; } | sort -V | tail -n 1
            ;;
        *) printf '%s\n' "$2" ;;
    esac
}

say_gone() {
    local suite=$1 name=$2 version=$3 note=$4 new_name new_version
    read -r new_name new_version _ <"$note"
    [ "$new_name" = "$name" ] || new_version="$new_name $new_version"
    say "PINNED PACKAGE GONE: $suite no longer has $name $version; taking $new_version, which apt has verified." \
        "Renew the pins with scripts/pin and commit them."
}

# forget_gone SUITE: asks the archive again next time.
forget_gone() {
    rm -rf "$(apt_root "$1")/gone"
}

# --- The apt root.

apt_root() {
    printf '%s/apt-%s\n' "$cache" "$1"
}

# apt_in SUITE TOOL ARG...: apt-get or apt-cache on an empty machine of that suite.
apt_in() {
    local suite=$1 tool=$2
    shift 2
    prepare_apt_root "$suite" || exit
    "$tool" -c "$(apt_root "$suite")/apt.conf" "$@"
}

# describe SUITE NAME[=VERSION]...: prints a sorted line "name version sha256 arch" for each package in the lists.
describe() {
    { apt_in "$1" apt-cache show --no-all-versions "${@:2}" 2>/dev/null || true; } |
        awk '
            $1 == "Package:" { name = $2 }
            $1 == "Version:" { version = $2 }
            $1 == "Architecture:" { arch = $2 }
            $1 == "SHA256:" { print name, version, $2, arch }
        ' | LC_ALL=C sort -u
}

# refresh_lists SUITE: reads the package lists anew, unless that was a moment ago.
refresh_lists() {
    local suite=$1 root
    root=$(apt_root "$suite")
    prepare_apt_root "$suite" || exit
    ! lists_are_fresh "$root" || return 0
    # Any list that cannot be read is an error: pins are not gone because their list is.
    flock "$root" apt-get -c "$root/apt.conf" update -qq -o APT::Update::Error-Mode=any >&2 ||
        fail "cannot read the package lists of $suite from $(archive_addresses | sed -E 's#//[^/@]*@#//#g; s/ / and /'):" \
            "set SANDBOX_DEBIAN_MIRROR if another archive can be reached"
    touch "$root/refreshed"
}

# Other sources have other lists.
lists_are_fresh() {
    [ "$1/refreshed" -nt "$1/sources.list" ] && [ -n "$(find "$1/refreshed" -mmin "-$fresh_minutes")" ]
}

# prepare_apt_root SUITE
prepare_apt_root() {
    local suite=$1 root addresses keys
    root=$(apt_root "$suite")
    addresses=$(archive_addresses) || return
    keys=$(archive_keys) || return
    mkdir -p "$root"/{lists/partial,archives/partial,gone} || return
    # Addresses may hold passwords.
    chmod 700 "$root"
    : >>"$root/status"
    apt_configuration "$root" | replace "$root/apt.conf"
    sources "$suite" "$keys" "$addresses" | replace "$root/sources.list"
}

# apt reads this after the machine's configuration, of which proxies and other options of Acquire remain.
apt_configuration() {
    cat <<END
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::status "$1/status";
Dir::State::extended_states "$1/extended_states";
Dir::State::lists "$1/lists";
Dir::Cache::archives "$1/archives";
Dir::Cache::pkgcache "$1/pkgcache.bin";
Dir::Cache::srcpkgcache "$1/srcpkgcache.bin";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
APT::Default-Release "";
// It is not the machine that is updated, so its hooks do not run.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
// apt's own user, whom it becomes as root, cannot write here.
APT::Sandbox::User "root";
// Whatever the machine allows, packages are verified. But a suite may become oldstable.
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowReleaseInfoChange "true";
END
}

# sources SUITE KEYS ADDRESSES
sources() {
    local archive security
    read -r archive security <<<"$3"
    local options="target=Packages signed-by=$2"
    printf 'deb [%s] %s %s main\n' "$options" "$archive" "$1" "$options" "$archive" "$1-updates" \
        "$options" "$security" "$1-security"
}

# archive_addresses: prints the address of Debian's archive and that of its security updates.
archive_addresses() {
    local archive='' security=''
    if [ -n "${SANDBOX_DEBIAN_MIRROR:-}" ]; then
        read -r archive security <<<"$SANDBOX_DEBIAN_MIRROR"
    else
        read -r archive security < <(machine_addresses) || true
    fi
    [ -n "$archive" ] ||
        fail "this machine's apt reads no Debian archive: set SANDBOX_DEBIAN_MIRROR to the address of one," \
            "and after a space that of its security updates, if that is not the same with -security at its end"
    printf '%s %s\n' "$archive" "${security:-${archive%/}-security}"
}

# machine_addresses: the same two, as far as the machine's own apt has them. apt reads its files itself, of either format.
# Other archives have suites of Debian's names too, but none with updates.
machine_addresses() {
    # Its lists and packages do not matter here: reading them takes a while.
    local without=("-oDir::State::"{lists,status}"=/dev/null" "-oDir::Cache::"{pkgcache,srcpkgcache}"=")
    # shellcheck disable=SC2016  # These are for apt.
    apt-get indextargets "${without[@]}" --no-release-info \
        --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suites="^($debian_suites)" '
            $3 != "main" || !match($2, suites) { next }
            { kind = substr($2, RLENGTH + 1) }
            kind == "/updates" { kind = "-security" }
            !(kind in first) { first[kind] = $1 }
            END { print ("-updates" in first ? first["-updates"] : first[""]), first["-security"] }
        '
}

# archive_keys: the files with the keys that Debian signs its archive with, separated by commas.
archive_keys() {
    find_archive_keys || { install_packages debian-archive-keyring && find_archive_keys; } ||
        fail "Debian's keys are not on this machine: install the package debian-archive-keyring"
}

find_archive_keys() {
    local file found=()
    # This one is complete; where it is missing, there may be a file for each key.
    for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ ! -f "$file" ] || { printf '%s\n' "$file" && return; }
    done
    for file in /etc/apt/trusted.gpg.d/debian-archive-*.{gpg,asc}; do
        [ ! -f "$file" ] || found+=("$file")
    done
    [ ${#found[@]} -gt 0 ] && (IFS=, && printf '%s\n' "${found[*]}")
}
