# A hostile guest: a multiboot image that carries out the program appended to it (guest.rs has its
# words). It reads the nonces out of the initramfs, as a hostile kernel can.
#
#   as --32 -o guest.o guest.S && ld -m elf_i386 -N -Ttext=0x100000 --oformat binary -o guest.bin guest.o

        .set BASE, 0x100000
        .set COM1, 0x3f8
        .set COM2, 0x2f8

        .text
        .code32
        .globl _start
_start:
header:
        .long 0x1badb002                # multiboot magic
        .long 0x00010000                # flags: the address fields below are valid
        .long -(0x1badb002 + 0x00010000)
        .long header                    # header_addr
        .long BASE                      # load_addr
        .long 0                         # load_end_addr: all of the file
        .long 0                         # bss_end_addr
        .long entry                     # entry_addr

entry:
        cli
        movl $stack, %esp
        movl 24(%ebx), %eax             # the modules, of which the initramfs is the only one
        movl (%eax), %esi
        movl 4(%eax), %edi
        subl $64, %edi
1:      cmpl $0x636e6f6e, (%esi)        # nonc
        jne 2f
        cmpw $0x3d65, 4(%esi)           # e=
        jne 2f
        cmpl $0x72616d0a, 38(%esi)      # \nmar
        je 3f
2:      incl %esi
        cmpl %edi, %esi
        jb 1b
3:      addl $6, %esi
        movl %esi, nonce
        movl $program, %esi
next:
        xorl %eax, %eax
        lodsb
        cmpb $1, %al
        je say
        cmpb $2, %al
        je secret
        cmpb $3, %al
        je jump
        cmpb $4, %al
        je delay
        cmpb $5, %al
        je reboot
        cmpb $6, %al
        je fault
hang:   cli
        hlt
        jmp hang

say:    call port                       # port, length of 16 bits, bytes
        xorl %ecx, %ecx
        movw (%esi), %cx
        addl $2, %esi
        call print
        jmp next

secret: call port                       # port, 0 for the nonce and 40 for the marker
        xorl %eax, %eax
        lodsb
        pushl %esi
        movl nonce, %esi
        addl %eax, %esi
        movl $32, %ecx
        call print
        popl %esi
        jmp next

jump:   movl (%esi), %eax               # offset in the program
        leal program(%eax), %esi
        jmp next

delay:  movl (%esi), %ecx               # turns of a loop
        addl $4, %esi
4:      decl %ecx
        jnz 4b
        jmp next

reboot: movb $0xfe, %al                 # by the keyboard's controller
        outb %al, $0x64
        jmp hang

fault:  lidt none                       # a triple fault
        int3

port:   xorl %eax, %eax
        lodsb
        movl $COM1, %ebp
        cmpb $1, %al
        je 5f
        movl $COM2, %ebp
5:      ret

print:  leal 5(%ebp), %edx              # line status
        inb %dx, %al
        testb $0x20, %al                # transmitter empty
        jz print
        movl %ebp, %edx
        lodsb
        outb %al, %dx
        decl %ecx
        jnz print
        ret

        .balign 8
none:   .quad 0
nonce:  .long 0
        .fill 256
stack:
program:
