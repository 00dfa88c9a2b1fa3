# Sourced: sets SEQPAR_CUDNN_LIBRARY to a cuDNN that serves (9.19 or newer): the loader's, else that of PyTorch's Python
# packages. Says what it found; false where there is none.
cudnn_version() { # FILE
  python3 -c 'import ctypes, sys
version = ctypes.CDLL(sys.argv[1]).cudnnGetVersion()
print("%d.%d.%d" % (version // 10000, version // 100 % 100, version % 100))
sys.exit(version < 91900)' "$1" 2>/dev/null
}
seqpar_find_cudnn() {
  local file version
  for file in "${SEQPAR_CUDNN_LIBRARY:-}" libcudnn.so.9 \
    "$(python3 -c 'import nvidia.cudnn as c; print(list(c.__path__)[0] + "/lib/libcudnn.so.9")' 2>/dev/null)"; do
    [ -n "$file" ] || continue
    if version=$(cudnn_version "$file"); then
      export SEQPAR_CUDNN_LIBRARY=$file
      echo "cuDNN $version ($file)"
      return 0
    fi
    [ -z "$version" ] || echo "cuDNN $version ($file) is too old"
  done
  echo "no cuDNN on this machine: attention by it not run"
  return 1
}
seqpar_find_cudnn
