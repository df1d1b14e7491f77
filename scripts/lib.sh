# What the scripts share. Source it; it changes nothing by itself.
set -euo pipefail
# A failure inside $(…) is one too.
shopt -s inherit_errexit
# These would override .cargo/config.toml, which makes the binaries static, and where it puts them.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Build products live outside the checkout, each in a directory named after the hash of its inputs.
cache=${SANDBOX_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-build}
# What scripts/build makes, and the tests run.
binary=$repo/target/x86_64-unknown-linux-gnu/release/sandbox

. "$repo/scripts/apt.sh"

# End-to-end tests, one of each mechanism: streams, signals, processes, memory, the clock, limits, crashes, files,
# confinement, refusals.
one_of_each_mechanism=(
    equivalence::{hello,code_on_standard_input,odd_arguments,piped_standard_input,an_uncaught_exception,death_by_sigterm}
    equivalence::{a_segmentation_fault,eight_mebibytes_out,multiprocessing_by_fork,subprocesses_with_pipes,signal_handlers}
    limits::{a_busy_loop_is_stopped_and_its_output_delivered,output_is_cut_at_the_limit_and_the_cut_is_told}
    guest::{vector_registers_survive_switches_between_processes,the_wall_clock_is_the_hosts}
    kernel_memory::no_system_call_reads_or_writes_the_kernel_for_a_program
    kernel_signals::each_fault_has_its_signal_code_address_and_place
    kernel_state::vector_states_survive_signal_handlers_that_change_them
    kernel_traps::what_only_a_kernel_may_execute_ends_in_a_signal
    machine::{an_exception_without_a_handler_is_a_triple_fault,a_halt_with_interrupts_off_is_for_good}
    files::a_tree_keeps_its_names_modes_and_empty_directories
    confine::both_threads_are_without_rights
    failures::doctor_names_the_host_and_the_guest
)

# When the first of these scripts began that call each other.
export SCRIPTS_BEGAN=${SCRIPTS_BEGAN:-$(date +%s)}

# say TEXT...: with the name of the script, and how long it and those that called it have run.
say() { printf '%s, after %s s: %s\n' "$(basename "$0")" $(($(date +%s) - SCRIPTS_BEGAN)) "$*" >&2; }
fail() { say "$*"; exit 1; }

# cargo_test ARGUMENT...: of the tests, which run the binary that was built.
cargo_test() {
    SANDBOX_BINARY=$binary env --default-signal=HUP,INT,QUIT,TERM cargo test --locked --profile harness "$@"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# has_package NAME: what this Debian package brings is there, wherever it came from.
has_package() {
    case $1 in
        ca-certificates) compgen -G '/etc/ssl/certs/*' >/dev/null ;;
        libc6-dev) has_header stdlib.h ;;
        libelf-dev) has_header libelf.h ;;
        python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        debian-archive-keyring) compgen -G '/usr/share/keyrings/debian-archive-keyring.*' >/dev/null ;;
        *) command -v "$(tool_of "$1")" >/dev/null ;;
    esac
}

# tool_of PACKAGE: the command that is wanted of it.
tool_of() {
    case $1 in
        bubblewrap) echo bwrap ;;
        cargo-web) echo cargo ;;
        dpkg) echo dpkg-deb ;;
        erofs-utils) echo mkfs.erofs ;;
        musl-tools) echo musl-gcc ;;
        procps) echo pgrep ;;
        qemu-system-x86) echo qemu-system-x86_64 ;;
        rust-web-clippy) echo cargo-clippy ;;
        rustc-web) echo rustc ;;
        rustfmt-web) echo rustfmt ;;
        xz-utils) echo xz ;;
        *) echo "$1" ;;
    esac
}

has_header() { echo "#include <$1>" | cc -E - >/dev/null 2>&1; }

# install_packages NAME...: what is missing of what these Debian packages bring, by apt.
install_packages() {
    local missing=() name
    for name in "$@"; do
        has_package "$name" || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null ||
        fail "what these Debian packages bring is missing, and there is no apt-get to install them: ${missing[*]}"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        fail "packages are missing, and there is no sudo to install them. As root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    mkdir -p "$cache"
    (
        # apt does not wait for another one that reads its lists.
        flock 9
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    ) 9>"$cache/apt-get.lock"
}

# need_cargo: one that is new enough. Debian's own is not; cargo-web is the one that its browsers are built with. It fetches
# crates, which takes the certificates of authorities.
need_cargo() {
    local oldest version advice bin=${CARGO_HOME:-$HOME/.cargo}/bin
    local rustup="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$repo/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        [ ! -x "$bin/cargo" ] || fail "cargo is in $bin, which is not on PATH: export PATH=\"$bin:\$PATH\", and run this again"
        # Other distributions have apt too, but not these.
        ! command -v apt-get >/dev/null ||
            install_packages cargo-web rustc-web rustfmt-web rust-web-clippy ca-certificates || true
    fi
    command -v cargo >/dev/null ||
        fail "there is no cargo. Install Rust $oldest or newer with $rustup, and run this again in another shell"
    # In the repository, whose rust-toolchain.toml rustup reads.
    version=$(cd "$repo" && cargo --version) || fail "cargo does not run, as it says above. Install Rust anew with $rustup"
    read -r _ version _ <<<"$version"
    printf '%s\n' "$oldest" "$version" | sort --version-sort --check=quiet && return
    advice="remove it, and install Rust with $rustup"
    ! command -v rustup >/dev/null || advice="rustup update stable"
    fail "$(command -v cargo) is cargo $version, and Rust $oldest or newer is needed: $advice"
}

# has_guest BINARY: it was built after scripts/build-assets, and not in a fresh clone.
has_guest() {
    local version
    version=$("$1" --version)
    [[ $version != *"without a guest"* ]]
}

# hash_of FILE...: one hash of the contents, in the order given. A *.lock counts as the packages that are really taken:
# what is made of others than the pinned ones does not get the pins' name.
hash_of() {
    local file
    for file in "$@"; do
        case $file in
            *.lock)
                settle "$file"
                taken "$file"
                ;;
            *) cat "$file" ;;
        esac
    done | sha256sum | cut -c1-16
}

# cached_venv NAME REQUIREMENTS: prints the path of a virtual environment with these packages, which is kept in the cache.
# Call it on its own: beside ||, a failure in it would not end the script.
cached_venv() {
    local venv making
    venv=$cache/$1-$(hash_of "$2")
    if [ ! -d "$venv" ]; then
        say "installing what $(realpath --relative-to="$repo" "$2") names"
        mkdir -p "$cache"
        making=$(mktemp -d "$cache/making-$1.XXXXXX")
        # shellcheck disable=SC2064  # What it is now.
        trap "rm -rf '$making'" EXIT
        /usr/bin/python3 -m venv "$making"
        "$making/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r "$2" >&2
        mv -T "$making" "$venv" 2>/dev/null || [ -d "$venv" ]
    fi
    printf '%s\n' "$venv"
}

# replace FILE: writes standard input there, unless that is what it holds: an untouched file spares what depends on it.
replace() {
    local new=$1.$BASHPID
    cat >"$new"
    if cmp -s "$new" "$1"; then rm "$new"; else mv "$new" "$1"; fi
}

# python_of LOCK: the name of the image's interpreter, as python3.13.
python_of() {
    sed -n 's/^\(python3\.[0-9]*\) .*/\1/p' "$1"
}

# compress FROM TO LEVEL: with a copy kept in the cache, since the best compression, 19, takes a while.
compress() {
    local kept
    kept=$(dirname "$1")/compressed-$3.zst
    if [ ! -f "$kept" ]; then
        say "compressing $(basename "$1")"
        zstd -q -f -T0 "-$3" "$1" -o "$kept.$$"
        mv "$kept.$$" "$kept"
    fi
    replace "$2" <"$kept"
}
