# Attention on tensor cores: FlashAttention-4's kernels, compiled ahead of time by worker/device/cuda/fa4/export.py from
# packages of exact versions into an archive an architecture (sm_90a, sm_100a) that the plug-in links. Sets SEQPAR_FA4_DIR,
# SEQPAR_FA4_LIBRARIES and the target seqpar_fa4 that makes them; or nothing, and attention takes other kernels.
#
# An archive is made once for its inputs, which its folder is named after, whatever build folder asks for it.
set(SEQPAR_FA4 AUTO CACHE STRING
    "Tensor-core attention: ON builds it (downloads 450 MB of Python packages, takes minutes), AUTO takes it where it was built before, OFF")
set(SEQPAR_FA4_CACHE "" CACHE PATH "Where its archives are kept; empty: seqpar/fa4 under XDG_CACHE_HOME or ~/.cache")
set(SEQPAR_FA4_LIBRARIES "")
if(NOT SEQPAR_CUDA OR NOT SEQPAR_FA4)
  return()
endif()
if(CUDAToolkit_VERSION VERSION_LESS 13.0)
  message(STATUS "Tensor-core attention needs CUDA 13: building without it")
  return()
endif()
# Of the architectures that our own kernels are built for.
set(fa4_architectures "")
foreach(arch 90 100)
  if(SEQPAR_CUDA_ARCHITECTURES STREQUAL "" OR SEQPAR_CUDA_ARCHITECTURES MATCHES "(^|;)${arch}a")
    list(APPEND fa4_architectures ${arch})
  endif()
endforeach()
if(NOT fa4_architectures)
  message(STATUS "Tensor-core attention is for architectures 90a and 100a: building without it")
  return()
endif()
set(fa4_sources ${PROJECT_SOURCE_DIR}/worker/device/cuda/fa4)
set(fa4_cache "${SEQPAR_FA4_CACHE}")
if("${fa4_cache}" STREQUAL "")
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(fa4_cache $ENV{XDG_CACHE_HOME}/seqpar/fa4)
  else()
    set(fa4_cache $ENV{HOME}/.cache/seqpar/fa4)
  endif()
endif()
set(fa4_venv ${PROJECT_BINARY_DIR}/fa4-venv)
# A name on the path may stand for a version that is not there (pyenv's shims).
function(fa4_python_works result python)
  execute_process(COMMAND ${python} -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()
find_program(SEQPAR_FA4_PYTHON NAMES python3.12 python3.11 python3.13 python3.10 python3
             DOC "Python 3.10 or newer with venv and pip" VALIDATOR fa4_python_works)
add_custom_command(
  OUTPUT ${fa4_venv}/installed
  COMMAND ${SEQPAR_FA4_PYTHON} -m venv ${fa4_venv}
  COMMAND ${fa4_venv}/bin/pip install --quiet --no-deps -r ${fa4_sources}/requirements.txt
  COMMAND ${CMAKE_COMMAND} -E touch ${fa4_venv}/installed
  DEPENDS ${fa4_sources}/requirements.txt
  COMMENT "Installing what FlashAttention-4's kernels are compiled with"
  VERBATIM)
# fa4_archive(ARCH FILE...): takes, or has the build make, the archive of sm_ARCHa from those files of fa4_sources.
function(fa4_archive arch)
  list(TRANSFORM ARGN PREPEND ${fa4_sources}/ OUTPUT_VARIABLE inputs)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${inputs})
  set(hashes ${CMAKE_SYSTEM_PROCESSOR} ${arch})
  foreach(input ${inputs})
    file(SHA256 ${input} hash)
    list(APPEND hashes ${hash})
  endforeach()
  string(SHA256 hash "${hashes}")
  string(SUBSTRING ${hash} 0 16 hash)
  set(folder ${fa4_cache}/sm${arch}-${hash})
  set(archive ${folder}/libseqpar_fa4.a)
  if(EXISTS ${archive})
    message(STATUS "Tensor-core attention of sm_${arch}a: from ${folder}")
  elseif(SEQPAR_FA4 STREQUAL "AUTO")
    message(STATUS "Tensor-core attention of sm_${arch}a was not built before: building without it (-DSEQPAR_FA4=ON builds it)")
    return()
  else()
    message(STATUS "Tensor-core attention of sm_${arch}a: to be built in ${folder}")
    add_custom_command(
      OUTPUT ${archive} ${folder}/fa4_table.inc
      COMMAND ${fa4_venv}/bin/python ${fa4_sources}/export.py --arch ${arch} --out ${folder} --jobs 2
      DEPENDS ${inputs} ${fa4_venv}/installed
      COMMENT "Compiling FlashAttention-4's kernels for sm_${arch}a (a few minutes)"
      VERBATIM)
  endif()
  set(SEQPAR_FA4_LIBRARIES ${SEQPAR_FA4_LIBRARIES} ${archive} PARENT_SCOPE)
  set(fa4_table "${fa4_table}#include \"${folder}/fa4_table.inc\"\n" PARENT_SCOPE)
endfunction()
set(fa4_table "")
set(fa4_inputs export.py kernel_modules.py ring_kernels.py requirements.txt)
foreach(arch ${fa4_architectures})
  if(arch EQUAL 100)
    list(APPEND fa4_inputs ring_kernels_sm100.py)
  endif()
  fa4_archive(${arch} ${fa4_inputs})
endforeach()
if(SEQPAR_FA4_LIBRARIES)
  set(SEQPAR_FA4_DIR ${PROJECT_BINARY_DIR}/fa4)
  file(CONFIGURE OUTPUT ${SEQPAR_FA4_DIR}/fa4_table.inc CONTENT "${fa4_table}" @ONLY)
  add_custom_target(seqpar_fa4 DEPENDS ${SEQPAR_FA4_LIBRARIES})
endif()
