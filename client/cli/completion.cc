#include "client/cli/completion.h"

namespace seqpar {
namespace {

// COMP_WORDS are cut at '=' and ':' too: the words are taken from the line instead, and what stands before
// the last of these characters is cut from the answers, as readline replaces only what comes after it.
constexpr char kBash[] = R"(# source <(seqpar completion bash)
_seqpar() {
  local line=${COMP_LINE:0:COMP_POINT} words found last cut
  read -r -a words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  mapfile -t found < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
  last=${words[${#words[@]} - 1]}
  if [[ ${found[0]} == :files ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$last")
    return
  fi
  cut=${last%"${last##*[=:]}"}
  COMPREPLY=("${found[@]#"$cut"}")
  [[ ${#found[@]} -eq 1 && ${found[0]} == *[=.] ]] && compopt -o nospace
}
complete -F _seqpar seqpar
)";

constexpr char kZsh[] = R"(#compdef seqpar
# source <(seqpar completion zsh)
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_seqpar() {
  local -a found open
  found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ ${found[1]} == :files ]]; then
    _files
    return
  fi
  open=(${(M)found:#*[=.]})
  found=(${found:#*[=.]})
  compadd -- $found
  compadd -S '' -- $open
}
compdef _seqpar seqpar
)";

constexpr char kFish[] = R"(# seqpar completion fish | source
function __seqpar_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
  if test "$found[1]" = :files
    __fish_complete_path (commandline -ct)
  else
    printf '%s\n' $found
  end
end
complete -c seqpar -f -a '(__seqpar_complete)'
)";

}  // namespace

const std::vector<std::string>& CompletionShells() {
  static const auto& shells = *new std::vector<std::string>{"bash", "zsh", "fish"};
  return shells;
}

std::string CompletionScript(const std::string& shell) {
  return shell == "zsh" ? kZsh : shell == "fish" ? kFish : kBash;
}

}  // namespace seqpar
