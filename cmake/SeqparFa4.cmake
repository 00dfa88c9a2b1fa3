# Attention on tensor cores: FlashAttention-4's kernels, compiled ahead of time by worker/device/cuda/fa4/export.py from
# packages of exact versions into an archive that the plug-in links. Sets SEQPAR_FA4_DIR and SEQPAR_FA4_LIBRARY, and the
# target seqpar_fa4 that makes it; or nothing, and attention takes our own kernels.
#
# An archive is made once for its inputs, which its folder is named after, whatever build folder asks for it.
set(SEQPAR_FA4 AUTO CACHE STRING
    "Tensor-core attention: ON builds it (downloads 450 MB of Python packages, takes minutes), AUTO takes it where it was built before, OFF")
set(SEQPAR_FA4_CACHE "" CACHE PATH "Where its archives are kept; empty: seqpar/fa4 under XDG_CACHE_HOME or ~/.cache")
set(SEQPAR_FA4_LIBRARY "")
if(NOT SEQPAR_CUDA OR NOT SEQPAR_FA4)
  return()
endif()
if(CUDAToolkit_VERSION VERSION_LESS 13.0)
  message(STATUS "Tensor-core attention needs CUDA 13: building without it")
  return()
endif()
if(NOT SEQPAR_CUDA_ARCHITECTURES STREQUAL "" AND NOT SEQPAR_CUDA_ARCHITECTURES MATCHES "90a")
  message(STATUS "Tensor-core attention is for architecture 90a: building without it")
  return()
endif()
set(fa4_sources ${PROJECT_SOURCE_DIR}/worker/device/cuda/fa4)
set(fa4_inputs ${fa4_sources}/export.py ${fa4_sources}/kernel_modules.py ${fa4_sources}/ring_kernels.py
               ${fa4_sources}/requirements.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${fa4_inputs})
set(fa4_hashes ${CMAKE_SYSTEM_PROCESSOR})
foreach(input ${fa4_inputs})
  file(SHA256 ${input} hash)
  string(APPEND fa4_hashes ${hash})
endforeach()
string(SHA256 fa4_hash "${fa4_hashes}")
string(SUBSTRING ${fa4_hash} 0 16 fa4_hash)
set(fa4_cache "${SEQPAR_FA4_CACHE}")
if("${fa4_cache}" STREQUAL "")
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(fa4_cache $ENV{XDG_CACHE_HOME}/seqpar/fa4)
  else()
    set(fa4_cache $ENV{HOME}/.cache/seqpar/fa4)
  endif()
endif()
set(SEQPAR_FA4_DIR ${fa4_cache}/${fa4_hash})
if(EXISTS ${SEQPAR_FA4_DIR}/libseqpar_fa4.a)
  message(STATUS "Tensor-core attention: from ${SEQPAR_FA4_DIR}")
  add_custom_target(seqpar_fa4)
elseif(SEQPAR_FA4 STREQUAL "AUTO")
  message(STATUS "Tensor-core attention was not built before: building without it (-DSEQPAR_FA4=ON builds it)")
  return()
else()
  message(STATUS "Tensor-core attention: to be built in ${SEQPAR_FA4_DIR}")
  find_program(SEQPAR_FA4_PYTHON NAMES python3.12 python3.11 python3.13 python3.10 python3 DOC "Python 3.10 or newer with venv and pip")
  set(fa4_venv ${PROJECT_BINARY_DIR}/fa4-venv)
  add_custom_command(
    OUTPUT ${SEQPAR_FA4_DIR}/libseqpar_fa4.a ${SEQPAR_FA4_DIR}/fa4_table.inc
    COMMAND ${SEQPAR_FA4_PYTHON} -m venv ${fa4_venv}
    COMMAND ${fa4_venv}/bin/pip install --quiet --no-deps -r ${fa4_sources}/requirements.txt
    COMMAND ${fa4_venv}/bin/python ${fa4_sources}/export.py --out ${SEQPAR_FA4_DIR} --jobs 2
    DEPENDS ${fa4_inputs}
    COMMENT "Compiling FlashAttention-4's kernels (a few minutes)"
    VERBATIM)
  add_custom_target(seqpar_fa4 DEPENDS ${SEQPAR_FA4_DIR}/libseqpar_fa4.a)
endif()
set(SEQPAR_FA4_LIBRARY ${SEQPAR_FA4_DIR}/libseqpar_fa4.a)
