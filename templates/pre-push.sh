#!/bin/sh
# supa-safe pre-push hook, version 1
#
# Asks supa-safe about a push that carries migrations to a branch of the policy's list.
# `supa-safe hook uninstall` removes this file and brings back the hook that stood here before.

supa_safe=supa-safe
before=$(dirname -- "$0")/pre-push.before-supa-safe

ask() {
    command -v "$supa_safe" >/dev/null 2>&1 || supa_safe=supa-safe
    if ! command -v "$supa_safe" >/dev/null 2>&1; then
        printf '%s\n' 'error: supa-safe was not found, so nobody judged this push' \
            'hint: Install it, or run supa-safe hook install again where it stands' \
            'hint: git push --no-verify skips every hook; that is your choice' >&2
        exit 1
    fi
    exec "$supa_safe" check --pre-push "$@"
}

if [ -x "$before" ]; then
    # Git says once what it pushes, and both hooks read it.
    pushed=$(cat)
    say_pushed() { [ -z "$pushed" ] || printf '%s\n' "$pushed" 2>/dev/null; }
    say_pushed | "$before" "$@" || exit
    say_pushed | ask "$@"
else
    ask "$@"
fi
