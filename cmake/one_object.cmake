# Makes the static library one relocatable object: -D LINKER= -D OBJCOPY= -D AR= -D NM= -D SHARED= -D ARCHIVE= -D OUT=.
#
# rustc's archive brings Rust's standard library along with global names (rust_eh_personality, __rust_alloc …), which collide with those
# of another Rust library in the same program. Here only what SHARED exports stays global.
cmake_minimum_required(VERSION 3.25)

get_filename_component(folder ${OUT} DIRECTORY)
file(MAKE_DIRECTORY ${folder})
execute_process(COMMAND ${NM} -D --defined-only ${SHARED} OUTPUT_VARIABLE exported COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "pvera_[a-z0-9_]+" exported "${exported}")
list(JOIN exported "\n" names)
file(WRITE ${folder}/exported.txt "${names}\n")
list(JOIN exported "\n-u " roots)
file(WRITE ${folder}/roots.txt "-u ${roots}\n")

# Groups are resolved here: a final link that drops one for its namesake would leave local names of ours without a section.
execute_process(COMMAND ${LINKER} -r --gc-sections --force-group-allocation @${folder}/roots.txt ${ARCHIVE} -o ${folder}/pvera.o
    COMMAND_ERROR_IS_FATAL ANY)
# Sections of LLVM's bitcode cannot be joined end to end, and tools that read them would refuse the object.
execute_process(COMMAND ${OBJCOPY} --keep-global-symbols=${folder}/exported.txt --strip-debug --remove-section=.llvmbc
            --remove-section=.llvmcmd ${folder}/pvera.o
    COMMAND_ERROR_IS_FATAL ANY)
# The linker keeps undefined names of code that it has dropped, and forgets that some were weak: they would be looked for in vain. Those
# that a stripped copy lacks go; names of functions stay, for the sake of debuggers and profilers.
execute_process(COMMAND ${OBJCOPY} --strip-unneeded ${folder}/pvera.o ${folder}/stripped.o COMMAND_ERROR_IS_FATAL ANY)
foreach(object IN ITEMS pvera stripped)
    execute_process(COMMAND ${NM} --undefined-only ${folder}/${object}.o OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX REPLACE " +[A-Za-z] " "" lines "${lines}")
    string(REGEX MATCHALL "[^\n]+" ${object} "${lines}")
endforeach()
list(REMOVE_ITEM pvera ${stripped})
list(JOIN pvera "\n" unused)
file(WRITE ${folder}/unused.txt "${unused}\n")
execute_process(COMMAND ${OBJCOPY} --strip-symbols=${folder}/unused.txt ${folder}/pvera.o COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${OUT})
execute_process(COMMAND ${AR} rcsD ${OUT} pvera.o WORKING_DIRECTORY ${folder} COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${folder}/pvera.o ${folder}/stripped.o)
