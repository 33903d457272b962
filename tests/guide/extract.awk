# Takes the code out of a Markdown page: awk -v out=FOLDER -f extract.awk PAGE. A fence says what becomes of its block:
#
#     ```LANGUAGE file=NAME      is written to FOLDER/NAME, as printed
#     ```sh run=NAME,NAME…       is appended to FOLDER/NAME.sh, for each NAME
#     ```c                       a fragment: becomes a function in FOLDER/fragment_LINE.c; fragments.h declares what it uses
#     ```text                    is left alone
#
# Any other fence is an error, so that no code is printed that no test has seen.

function refuse(why) {
    printf "%s:%d: %s\n", FILENAME, FNR, why >"/dev/stderr"
    failed = 1
    exit 1
}

function value_of(word, key) {
    return index(word, key "=") == 1 ? substr(word, length(key) + 2) : ""
}

function begin(language, how) {
    count = 0
    if (value_of(how, "file") != "") names[count = 1] = value_of(how, "file")
    else if (language == "sh" && value_of(how, "run") != "") {
        count = split(value_of(how, "run"), names, ",")
        for (i = 1; i <= count; i++) names[i] = names[i] ".sh"
    } else if (language == "c" && how == "") {
        names[count = 1] = "fragment_" FNR ".c"
        ending = "    return error;\n}"
        line("#include \"fragments.h\"\n\npvera_error *fragment(void) {\n    pvera_error *error = NULL;")
        line("#line " FNR + 1 " \"" FILENAME "\"")
    } else if (language != "text") refuse("a block of '" language " " how "': wanted file=, run=, a fragment of c, or text")
}

function line(text) {
    for (i = 1; i <= count; i++) print text >(out "/" names[i])
}

!inside && /^```/ {
    inside = 1
    ending = ""
    begin(substr($1, 4), $2)
    next
}
inside && /^```$/ {
    inside = 0
    if (ending != "") line(ending)
    next
}
inside { line($0) }

END { if (!failed && inside) refuse("the last block has no end") }
