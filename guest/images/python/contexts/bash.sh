# Runs cell after cell for a session: number, code and input (in base64) of each come on standard input, each
# with a NUL behind it, and what is told goes to descriptor 3, as records (guest/src/report.rs).
__sandbox_run() {
    trap 'return 130' INT
    printf '\005\0\0\0\0' >&"$__sandbox_reports"
    eval "$1"
}
__sandbox_serve() {
    local number code input status=0
    while :; do
        trap '' INT
        printf "\\005\\010\\0\\0\\0\\004\\0\\0\\0\\$(printf %03o "$status")\\0\\0\\0" >&"$__sandbox_reports"
        IFS= read -r -d '' number <&"$__sandbox_cells" || exit
        IFS= read -r -d '' code <&"$__sandbox_cells" || exit
        IFS= read -r -d '' input <&"$__sandbox_cells" || exit
        __sandbox_run "$code" < <(printf %s "$input" | base64 -d)
        status=$?
    done
}
exec {__sandbox_cells}<&0 {__sandbox_reports}>&3 3>&- </dev/null
__sandbox_serve
