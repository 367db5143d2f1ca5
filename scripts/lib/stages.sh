# Stages of a test run: each bounded in time, with a log of its own, all told in a table at the end. To be sourced after say.sh.
# shellcheck shell=bash disable=SC2154 # top: say.sh

stage_logs=$top/target/test-logs
stage_rows=()
stage_failed=()
stages_wanted=()

# stage NAME SECONDS COMMAND...: runs COMMAND (a function of the script or a program) unless other stages were asked for. Of what it says when it passes
# the lines that begin with '= ' are shown, and those that count what passed.
stage() {
    local name=$1 seconds=$2 log began spent verdict status=0
    shift 2
    if [ ${#stages_wanted[@]} -gt 0 ] && [[ " ${stages_wanted[*]} " != *" $name "* ]]; then return; fi
    mkdir -p "$stage_logs"
    log=$stage_logs/$name.log
    began=$SECONDS
    printf '==> %s (%s)\n' "$name" "$*"
    # SIGTERM lets a test clean up after itself; the kill is for one that does not.
    timeout --signal=TERM --kill-after=90 "$seconds" "$@" >"$log" 2>&1 </dev/null || status=$?
    spent=$((SECONDS - began))
    case $status in
        0) verdict=passed ;;
        124 | 137) verdict="failed: more than $seconds s" ;;
        *) verdict="failed (exit $status)" ;;
    esac
    if [ "$status" != 0 ]; then
        stage_failed+=("$name")
        printf '    %s after %s s; the end of %s:\n' "$verdict" "$spent" "${log#"$top"/}"
        tail -n 40 "$log" | sed 's/^/    | /'
    else
        { grep '^= ' "$log" | tail -n 40; grep -E '[0-9]+ passed' "$log" | tail -n 3; } | sed 's/^/    /' || true
    fi
    stage_rows+=("$(printf '%-14s %6s s  %s' "$name" "$spent" "$verdict")")
}

# stages_end: the table and the closing line; the exit code tells whether all stages passed.
stages_end() {
    [ ${#stage_rows[@]} -gt 0 ] || die "no stage is called ${stages_wanted[*]}"
    printf '\n%s\n' "stage            time  result"
    printf '%s\n' "${stage_rows[@]}"
    printf '%-14s %6s s\n' "all" "$SECONDS"
    printf '\n%d passed, %d failed\n' "$((${#stage_rows[@]} - ${#stage_failed[@]}))" "${#stage_failed[@]}"
    [ ${#stage_failed[@]} = 0 ]
}
