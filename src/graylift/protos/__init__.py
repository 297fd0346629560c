"""Messages of the gRPC protocols that we speak: only the fields we use, with the field numbers of their standards.

`make protos` makes the modules here of the .proto files beside them. Every message lives in a protobuf package of our
own (`graylift.<protocol>`), so that another library in the same process may register the standard's names; on the wire
only the numbers and the path of the method count, and the path is the standard's.
"""
