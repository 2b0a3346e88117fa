#!/bin/sh
# Builds supa-safe from this folder and installs it, or plays the demo.
set -eu

usage() {
    cat <<'EOF'
Builds supa-safe and installs it.

Usage:
    ./install.sh          build, and install into ${SUPA_SAFE_INSTALL_DIR:-$HOME/.local/bin}
    ./install.sh --demo   build, install what the demo needs, and play it; nothing else is installed

The demo gets PostgreSQL 17 and the real supabase CLI into
${SUPA_SAFE_TOOLS:-/var/tmp/supa-safe-tools-<uid>}; remove that folder and nothing of them is left.
EOF
}

say() { printf '%s\n' "$*" >&2; }

# die STATUS MESSAGE [NEXT STEP…]
die() {
    status=$1
    say "error: $2"
    shift 2
    for line in "$@"; do say "$line"; done
    exit "$status"
}

supported_system() {
    case $(uname -s) in
    Linux | Darwin) ;;
    MINGW* | MSYS* | CYGWIN* | Windows_NT)
        die 2 "supa-safe does not run on Windows itself" "Open a WSL terminal (wsl --install) and run ./install.sh there."
        ;;
    *) die 2 "supa-safe does not run on $(uname -s)" ;;
    esac
}

# rustup picks the release that rust-toolchain.toml names; any other cargo must be new enough by itself.
rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    fi
    command -v cargo >/dev/null 2>&1 ||
        die 1 "Rust is not installed" "Install it from https://rustup.rs, open a new terminal, and run this again."
    wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml)
    version=$(cargo --version) || die 1 "cargo does not run: see above"
    minor=$(printf '%s\n' "$version" | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    if [ -n "$minor" ] && [ "$minor" -lt "$wanted" ]; then
        die 1 "$version is too old: supa-safe needs Rust 1.$wanted" "Update it with rustup (https://rustup.rs): rustup update stable"
    fi
    command -v cc >/dev/null 2>&1 ||
        die 1 "no C compiler" "Install one: apt-get install build-essential, or on macOS xcode-select --install"
}

install_program() {
    folder=${SUPA_SAFE_INSTALL_DIR:-$HOME/.local/bin}
    say "Building supa-safe (a few minutes the first time)"
    cargo build --release --locked
    mkdir -p "$folder"
    # By rename, so that a running supa-safe keeps the file that it was started from.
    cp "${CARGO_TARGET_DIR:-target}/release/supa-safe" "$folder/.supa-safe.new"
    chmod 755 "$folder/.supa-safe.new"
    mv -f "$folder/.supa-safe.new" "$folder/supa-safe"

    say "Installed $folder/supa-safe ($("$folder/supa-safe" --version))"
    case :$PATH: in
    *:"$folder":*) ;;
    *)
        say "$folder is not in your PATH. Add this line to the startup file of your shell:"
        say "    export PATH=\"$folder:\$PATH\""
        ;;
    esac
    say "Next: supa-safe --help"
}

demo() {
    tools=$(tests/tools/setup demo)
    say "Building supa-safe (a few minutes the first time)"
    cargo build --locked
    SUPA_SAFE_DEMO_PG_BIN=$tools/pg17/bin
    SUPA_SAFE_DEMO_HOSTED_BIN=$tools/pg17-hosted/bin
    SUPA_SAFE_SUPABASE_BIN=$tools/npm/node_modules/supabase-v3/dist/supabase.js
    export SUPA_SAFE_DEMO_PG_BIN SUPA_SAFE_DEMO_HOSTED_BIN SUPA_SAFE_SUPABASE_BIN
    exec "${CARGO_TARGET_DIR:-target}/debug/supa-safe" demo "$@"
}

main() {
    command=install_program
    case ${1-} in
    "") ;;
    --demo)
        command=demo
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    supported_system
    cd "$(dirname "$0")"
    rust
    "$command" "$@"
}

main "$@"
